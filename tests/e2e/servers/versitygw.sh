# versitygw: an S3 server that verifies every signature and payload hash.
versitygw=1.8.0
printf '%s\n' "$versitygw" >"$cache/versitygw.version"
if ! stamp versitygw "$cache/versitygw.version" || [ ! -x "$cache/bin/versitygw" ]; then
    GOBIN=$cache/bin GOFLAGS=-mod=mod retry "$go" install "github.com/versity/versitygw/cmd/versitygw@v$versitygw"
    stamped versitygw
fi
