#!/usr/bin/env bash
# Installs what building, checking and rehearsing need beyond Rust, and says
# what it installs. Quick when everything is there already.
#
# Debian packages are installed only as root; anyone else is told the command.
# Python wheels and the buf binary go into .tools/ of this checkout alone.
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

packages=()
want() { [ -e "$1" ] || packages+=("$2"); }
want /usr/bin/cc build-essential
want /usr/bin/cmake cmake
want /lib/systemd/systemd systemd
want /usr/bin/dbus-daemon dbus
want /usr/bin/busctl systemd
want /usr/lib/postgresql/15/bin/postgres postgresql-15
want /usr/bin/setpriv util-linux
want /usr/bin/openssl openssl
want /usr/bin/ss iproute2
command -v python3 >/dev/null || packages+=(python3)
python3 -c 'import ensurepip, venv' 2>/dev/null || packages+=(python3-venv)
command -v npm >/dev/null || packages+=(npm)

if [ ${#packages[@]} -gt 0 ]; then
    mapfile -t packages < <(printf '%s\n' "${packages[@]}" | sort -u)
    install="apt-get install -y --no-install-recommends ${packages[*]}"
    # Debian's PostgreSQL would start a cluster of its own on installation.
    conf=/etc/postgresql-common/createcluster.conf
    no_cluster="mkdir -p ${conf%/*}
[ -e $conf ] || echo 'create_main_cluster = false' >$conf"
    [ "$(id -u)" = 0 ] || die "missing Debian packages; run as root:
$no_cluster
apt-get update && $install"
    say "installing Debian packages: ${packages[*]}"
    eval "$no_cluster"
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive $install >/dev/null
fi

stamp=$tools/venv/requirements.installed
if ! cmp -s tests/requirements.txt "$stamp"; then
    say "installing Python tools into .tools/venv: $(grep -v '^#' tests/requirements.txt | tr '\n' ' ')"
    python3 -m venv "$tools/venv"
    "$tools/venv/bin/pip" install -q --disable-pip-version-check -r tests/requirements.txt
    cp tests/requirements.txt "$stamp"
fi

buf=1.75.0
if [ "$(cat "$tools/node/buf.installed" 2>/dev/null)" != "$buf" ]; then
    say "installing buf $buf into .tools/node"
    mkdir -p "$tools/node"
    npm install --silent --no-save --no-package-lock --prefix "$tools/node" "@bufbuild/buf@$buf" </dev/null
    echo "$buf" >"$tools/node/buf.installed"
fi
