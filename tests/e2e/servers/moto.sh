# moto: S3 with session tokens, STS and IAM. It draws a large tree, so it has a folder of its own.
moto=5.2.5
printf '%s\n' "$moto" >"$cache/moto.version"
if ! stamp moto "$cache/moto.version" || [ ! -x "$cache/moto/bin/moto_server" ]; then
    rm -rf "$cache/moto"
    python3 -m venv "$cache/moto"
    retry "$cache/moto/bin/pip" install -q --disable-pip-version-check "moto[server]==$moto"
    stamped moto
fi
