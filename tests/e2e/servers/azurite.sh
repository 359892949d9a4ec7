# azurite: Azure Blob; it verifies shared key and SAS.
azurite=3.35.0
printf '%s\n' "$azurite" >"$cache/azurite.version"
if ! stamp azurite "$cache/azurite.version" || [ ! -e "$cache/azurite/node_modules/azurite/dist/src/blob/main.js" ]; then
    mkdir -p "$cache/azurite"
    (cd "$cache/azurite" && retry npm install --silent --no-fund --no-audit "azurite@$azurite")
    stamped azurite
fi
