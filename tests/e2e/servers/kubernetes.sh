# kube-apiserver and etcd, built from their modules: a control plane without nodes, for the tests of
# k8sattributes. Debian's etcd 3.4 beside it has no watch-list: the fallback is tested with that one.
# Building takes ten minutes on two cores; it is done again only when a version changes.
kubernetes=1.36.3
etcd=3.7.3
staging="api apiextensions-apiserver apimachinery apiserver cli-runtime client-go cloud-provider
cluster-bootstrap code-generator component-base component-helpers controller-manager cri-api
cri-client cri-streaming csi-translation-lib dynamic-resource-allocation endpointslice externaljwt kms
kube-aggregator kube-controller-manager kube-proxy kube-scheduler kubectl kubelet metrics mount-utils
pod-security-admission sample-apiserver sample-cli-plugin sample-controller streaming"

kubernetes_build() {
    local folder=$cache/kubernetes
    rm -rf "$folder"
    mkdir -p "$folder/apiserver" "$folder/etcd"
    {
        printf 'module apiserver\n\ngo 1.26.0\n\ntool k8s.io/kubernetes/cmd/kube-apiserver\n\n'
        printf 'require k8s.io/kubernetes v%s\n\n' "$kubernetes"
        for module in $staging; do
            printf 'replace k8s.io/%s => k8s.io/%s v0.%s\n' "$module" "$module" "${kubernetes#1.}"
        done
    } >"$folder/apiserver/go.mod"
    printf 'module etcd\n\ngo 1.26.0\n' >"$folder/etcd/go.mod"
    (
        cd "$folder/etcd"
        GOFLAGS=-mod=mod retry "$go" get -tool "go.etcd.io/etcd/server/v3@v$etcd"
        GOFLAGS=-mod=mod nice -n 10 "$go" build -o "$folder/etcd.built" go.etcd.io/etcd/server/v3
        cd "$folder/apiserver"
        retry "$go" mod tidy
        version=k8s.io/component-base/version
        GOFLAGS=-mod=mod nice -n 10 "$go" build -o "$folder/apiserver.built" -ldflags \
            "-s -w -X $version.gitVersion=v$kubernetes -X $version.gitMajor=1 -X $version.gitMinor=${kubernetes:2:2}" \
            k8s.io/kubernetes/cmd/kube-apiserver
    )
    mv "$folder/etcd.built" "$cache/bin/etcd"
    mv "$folder/apiserver.built" "$cache/bin/kube-apiserver"
    rm -rf "$folder"
}

# Out of the package, not installed: its service would start.
etcd34_unpack() {
    local folder=$cache/etcd34
    rm -rf "$folder"
    mkdir -p "$folder"
    (cd "$folder" && retry apt-get download -qq etcd-server && dpkg-deb -x etcd-server_*.deb .)
    mv "$folder/usr/bin/etcd" "$cache/bin/etcd34"
    rm -rf "$folder"
}

if [ ! -x "$cache/bin/etcd34" ]; then etcd34_unpack; fi
if ! stamp kubernetes tests/e2e/servers/kubernetes.sh || [ ! -x "$cache/bin/kube-apiserver" ] ||
    [ ! -x "$cache/bin/etcd" ]; then
    kubernetes_build
    stamped kubernetes
fi
