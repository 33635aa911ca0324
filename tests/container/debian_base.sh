#!/usr/bin/env bash
# Makes the image that docker/Dockerfile starts from out of Debian's packages, for a server that reaches
# no image registry. The official image is made the same way, from the same packages.
#
#   sudo tests/container/debian_base.sh debian:12.11-slim      needs debootstrap
#
# Certificates in /usr/local/share/ca-certificates, such as a company's, come along.
set -euo pipefail
tag=${1:?usage: $0 TAG}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
debootstrap --variant=minbase bookworm "$folder/root" >&2
rm -rf "$folder"/root/var/cache/apt/archives/*.deb "$folder"/root/var/lib/apt/lists/*
cp -r /usr/local/share/ca-certificates "$folder/root/usr/local/share/"
tar -C "$folder/root" -c . | docker import --change 'CMD ["bash"]' - "$tag"
