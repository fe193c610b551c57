#!/usr/bin/env bash
# Compile kube-apiserver 1.20.2 from Debian's source package, once, and print the path of the program.
#
#   tests/cluster/compile_api_server.sh
#
#   CACHE    where it stays between runs; default: ~/.cache/mammoseq
#
# For Debian 12, the last whose source package holds the API server; elsewhere, or for another version,
# let KUBE_APISERVER name a program that is there already. Six to ten minutes on two cores.
#
#   apt-get install golang-1.19-go golang-github-modern-go-reflect2-dev dpkg-dev rsync
set -euo pipefail
umask 022

version=1.20.2
cache=${CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/mammoseq}
program=$cache/kube-apiserver-$version
if [ -x "$program" ]; then
    echo "$program"
    exit
fi

fail() {
    echo "$0: $*" >&2
    exit 1
}
go=/usr/lib/go-1.19/bin
reflect2=/usr/share/gocode/src/github.com/modern-go/reflect2
[ -x $go/go ] && [ -d $reflect2 ] && command -v dpkg-source rsync > /dev/null \
    || fail "needs golang-1.19-go golang-github-modern-go-reflect2-dev dpkg-dev rsync"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

# The sources of the archive that this machine's packages come from, signed as those are.
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
apt-get indextargets --format "deb-src [signed-by=$keyring] \$(SITE) \$(RELEASE) \$(COMPONENT)" \
    'Created-By: Packages' 'Origin: Debian' 'Codename: bookworm' 'Component: main' > sources.list
[ -s sources.list ] || fail "this machine has no packages of Debian 12"
mkdir -p lists/partial
apt=(-o Dir::Etc::SourceList="$work/sources.list" -o Dir::Etc::SourceParts=/dev/null
    -o Dir::State::Lists="$work/lists" -o APT::Sandbox::User=root)
apt-get "${apt[@]}" update -qq >&2
apt-get "${apt[@]}" source --download-only -qq kubernetes >&2
dpkg-source --extract ./*.dsc source > /dev/null

cd source
# The vendored one reads maps as they were before Go 1.18.
rm -r vendor/github.com/modern-go/reflect2
cp -r $reflect2 vendor/github.com/modern-go/
cat > "$work/version" << VERSION
KUBE_GIT_COMMIT=debian
KUBE_GIT_TREE_STATE=clean
KUBE_GIT_VERSION=v$version
KUBE_GIT_MAJOR=1
KUBE_GIT_MINOR=20
VERSION
PATH=$go:$PATH GOPATH=$work/go GOCACHE=$work/built GOFLAGS='' GOPROXY=off \
    KUBE_GIT_VERSION_FILE=$work/version \
    make WHAT=cmd/kube-apiserver GOLDFLAGS='-s -w' >&2

mkdir -p "$cache"
# Moved when whole, so that a broken run leaves nothing that looks like a program.
cp _output/bin/kube-apiserver "$program.new"
mv "$program.new" "$program"
echo "$program"
