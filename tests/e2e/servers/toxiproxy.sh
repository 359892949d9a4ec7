# toxiproxy: slow, cut and resetting connections between flue and a destination (MIT). Its module
# names its program "server".
toxiproxy=v2.5.0
printf '%s\n' "$toxiproxy" >"$cache/toxiproxy.version"
if ! stamp toxiproxy "$cache/toxiproxy.version" || [ ! -x "$cache/bin/toxiproxy" ]; then
    mkdir -p "$cache/toxiproxy"
    (cd "$cache/toxiproxy" &&
        GOFLAGS=-mod=mod GOBIN=$cache/toxiproxy retry "$go" install "github.com/Shopify/toxiproxy/v2/cmd/server@$toxiproxy")
    mv "$cache/toxiproxy/server" "$cache/bin/toxiproxy"
    stamped toxiproxy
fi
