# fake-gcs-server: Google Cloud Storage's JSON API; it checks neither credentials nor hashes.
fakegcs=1.56.1
printf '%s\n' "$fakegcs" >"$cache/fakegcs.version"
if ! stamp fakegcs "$cache/fakegcs.version" || [ ! -x "$cache/bin/fake-gcs-server" ]; then
    GOBIN=$cache/bin GOFLAGS=-mod=mod retry "$go" install "github.com/fsouza/fake-gcs-server@v$fakegcs"
    stamped fakegcs
fi
