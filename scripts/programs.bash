# shellcheck shell=bash disable=SC2154
# The programs of `scripts/programs`: a function for each, and one that names what it needs: commands, or Python's modules.
# Each runs in an empty directory. What it prints is compared, so it prints nothing that varies; on standard error it may.
# `base`, `root` and `bundle` come from the script: its own directory, this crate's, and a git bundle of it.

needs_venv() { echo "python3 python:ensurepip python:venv"; }
venv() {
    python3 -m venv v
    v/bin/python -c 'import sys; print(sys.prefix != sys.base_prefix)'
    # A wheel is a zip file with a list of what is in it.
    python3 - <<'END'
import zipfile
with zipfile.ZipFile("tiny-1.0-py3-none-any.whl", "w") as z:
    z.writestr("tiny/__init__.py", "answer = 42\n")
    z.writestr("tiny/main.py", "def main(): print('tiny', __file__.count('site-packages'))\n")
    info = "tiny-1.0.dist-info/"
    z.writestr(info + "METADATA", "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n")
    z.writestr(info + "WHEEL", "Wheel-Version: 1.0\nGenerator: hand\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
    z.writestr(info + "entry_points.txt", "[console_scripts]\ntiny = tiny.main:main\n")
    z.writestr(info + "RECORD", "")
END
    v/bin/pip install --quiet --no-index ./tiny-1.0-py3-none-any.whl
    v/bin/tiny
    v/bin/python -c 'import tiny; print(tiny.answer)'
    v/bin/pip check
    v/bin/pip uninstall --quiet --yes tiny
    { v/bin/python -c 'import tiny' 2>&1 || true; } | tail -n 1
    find v -type f ! -name '*.pyc' | wc -l
    find v -type l | sort
    python3 -m venv --clear v
    v/bin/python -m compileall -q -f v/lib
}

needs_pip() { needs_venv; }
pip() {
    python3 -m venv v
    v/bin/pip install --quiet --disable-pip-version-check --no-cache-dir six==1.16.0 colorama==0.4.6
    v/bin/python -c 'import six, colorama; print(six.__version__, colorama.__version__)'
    v/bin/pip install --quiet --disable-pip-version-check --no-cache-dir --upgrade six==1.17.0
    v/bin/pip freeze
    v/bin/pip check
}

needs_python_tests() { echo "python3 python:test.test_os"; }
python_tests() {
    local module
    # Those of them that this Python has.
    for module in test_os test_posix test_posixpath test_genericpath test_shutil test_tempfile test_pathlib test_glob \
        test_file test_fileio test_io test_mmap test_fcntl test_stat test_mailbox test_zipfile test_tarfile test_gzip \
        test_sqlite3 test_dbm test_dbm_dumb test_dbm_gnu test_shelve test_fileinput test_filecmp test_zipapp test_linecache; do
        python3 -c "import test.$module" 2>/dev/null || continue
        if timeout 300 python3 -m test --tempdir "$PWD" --timeout 240 "$module" >log 2>&1; then
            echo "$module: $(grep -oE '^Result: .*|^== Tests result: .*' log | tail -n 1)"
        else
            # The same ones as on the bare directory, then.
            echo "$module: $(grep -E '^(FAIL|ERROR): ' log | sort -u | tr '\n' ';')"
        fi
        cat log >&2
    done
}

needs_vim() { echo vim; }
vim() {
    printf 'a%s\n' {1..500} >text
    chmod 640 text
    ln text hard
    local how
    for how in yes no auto breakhardlink; do
        command vim -es -N -u NONE -i NONE --cmd "set backupcopy=$how backup writebackup backupskip= swapfile undofile fsync" \
            -c '%s/a/b/e' -c "1s/^/$how /" -c wq text || echo "status $?"
        sha256sum text text~ hard
        stat -c '%n %a %h %s' text text~ hard
    done
    find . -mindepth 1 | sort
}

needs_make() { echo "make gcc ar"; }
make() {
    mkdir src
    local i
    for i in {1..40}; do echo "int f$i(int n) { return n + $i; }" >"src/f$i.c"; done
    { echo '#include <stdio.h>'; for i in {1..40}; do echo "int f$i(int);"; done
        echo 'int main(void) { int n = 0;'; for i in {1..40}; do echo "n = f$i(n);"; done; echo 'printf("%d ", n); }'; } >src/main.c
    cat >Makefile <<'END'
.RECIPEPREFIX = >
O := $(sort $(patsubst src/f%.c,o/f%.o,$(wildcard src/f*.c)))
all: one two
o/%.o: src/%.c | o
> gcc -fPIC -c -o $@ $<
o:
> mkdir o
liball.a: $(O)
> ar rcs $@ $(O)
liball.so: $(O)
> gcc -shared -o $@ $(O)
one: src/main.c liball.a
> gcc -o $@ $^
two: src/main.c liball.so
> gcc -o $@ $^ -Wl,-rpath,.
END
    command make -j4 | sort
    ./one
    ./two
    command make | sort
    touch src/f7.c
    command make | sort
    sha256sum one liball.so | sed 's/ .*//'
}

# A tree of a few thousand files that most machines have.
big=/usr/share
big_tree() { (cd "$big" && { find . ! -type d -readable 2>/dev/null || true; } | LC_ALL=C sort | sed -n 1,5000p >"$1"); }

needs_tar() { echo "tar"; }
tar() {
    big_tree "$PWD/names"
    command tar -C "$big" -cf a.tar -T names
    mkdir t
    command tar -C t -xpf a.tar
    # To others the files of root are not given back.
    ((EUID != 0)) || command tar -C t -df a.tar
    command tar -C t -czf b.tgz .
    command tar -tzf b.tgz | sort | sha256sum
    (cd t && find . -type f -print0 | sort -z | xargs -0 sha256sum) | sha256sum
    rm -r t
    ls
}

needs_rsync() { echo rsync; }
rsync() {
    big_tree "$PWD/names"
    command rsync -aHAX --files-from=names "$big/" one/
    command rsync -aHAXi --files-from=names "$big/" one/
    command rsync -aHAX one/ two/
    command rsync -aHAXic --delete one/ two/
    diff -r --no-dereference one two
    find two -name '*.gz' -delete
    command rsync -aHAX --partial --delay-updates one/ two/
    diff -r --no-dereference one two
    find two | wc -l
}

needs_git() { echo git; }
git() {
    local g=(command git -c user.name=a -c user.email=a@b -c gc.auto=0 -c advice.detachedHead=false -c init.defaultBranch=main)
    "${g[@]}" clone -q "$bundle" w
    cd w || return
    "${g[@]}" fsck --full --strict --no-dangling
    "${g[@]}" config core.fsync all
    "${g[@]}" gc -q --aggressive --prune=now
    "${g[@]}" repack -qadf --depth=10
    "${g[@]}" worktree add -q ../side HEAD
    (cd ../side && echo more >>README.md && "${g[@]}" commit -qam more --date=@1700000000 && "${g[@]}" status --porcelain)
    "${g[@]}" stash list
    echo text >new && "${g[@]}" add -A && "${g[@]}" stash -q && "${g[@]}" stash pop -q && "${g[@]}" status --porcelain
    "${g[@]}" reset -q --hard && "${g[@]}" worktree remove --force ../side
    "${g[@]}" clone -q . ../copy
    "${g[@]}" pack-refs --all
    "${g[@]}" fsck --full --no-dangling
    "${g[@]}" rev-parse 'HEAD^{tree}'
    "${g[@]}" -C ../copy grep -c . HEAD -- README.md
}

package() {
    mkdir -p p/DEBIAN p/opt/tiny
    printf 'Package: tiny\nVersion: %s\nArchitecture: all\nMaintainer: a <a@b>\nDescription: tiny\n' "$1" >p/DEBIAN/control
    for i in {1..200}; do echo "$1 $i" >"p/opt/tiny/$i"; done
    ln -sf 1 p/opt/tiny/link
    find p -exec touch -h -d @1700000000 {} +
    SOURCE_DATE_EPOCH=1700000000 dpkg-deb --root-owner-group --build p "tiny-$1.deb"
    rm -r p
}
needs_dpkg_deb() { echo dpkg-deb; }
dpkg_deb() {
    package 1
    sha256sum tiny-1.deb
    dpkg-deb --contents tiny-1.deb | wc -l
    dpkg-deb --extract tiny-1.deb x
    dpkg-deb --raw-extract tiny-1.deb y
    diff -r x/opt y/opt
}
needs_dpkg_install() { echo dpkg; }
dpkg_install() {
    package 1
    package 2
    mkdir -p root/var/lib/dpkg/{info,updates,parts}
    touch root/var/lib/dpkg/{status,available}
    local version
    for version in 1 2 1; do
        dpkg --root="$PWD/root" --force-depends --log=/dev/null --install "tiny-$version.deb"
        cat root/opt/tiny/{1,link}
    done
    dpkg --root="$PWD/root" --verify tiny
    dpkg --root="$PWD/root" --log=/dev/null --purge tiny
    find root -name '*tiny*'
}

needs_npm() { echo "npm node"; }
npm() {
    mkdir a b
    echo '{"name":"a","version":"1.0.0","main":"a.js","bin":{"a":"a.js"}}' >a/package.json
    printf '#!/usr/bin/env node\nmodule.exports = 42;\n' >a/a.js
    echo 'console.log(require("a"))' >b/go.js
    echo '{"name":"b","version":"1.0.0","private":true,"scripts":{"go":"node go.js"}}' >b/package.json
    export npm_config_cache=$PWD/cache npm_config_update_notifier=false npm_config_audit=false npm_config_fund=false
    (cd a && command npm pack --silent --pack-destination ..)
    cd b || return
    command npm install --offline --silent ../a-1.0.0.tgz
    command npm run --silent go
    command npm ls --offline | tail -n +2
    rm -r node_modules
    command npm ci --offline --silent
    node_modules/.bin/a
    command npm uninstall --offline --silent a
    find . | sort
}

needs_rocksdb() { echo "ldb sst_dump"; }
rocksdb() {
    seq -f '%06g' 1 30000 | sed 's/.*/key& ==> value&/' | ldb --db=db --create_if_missing load
    ldb --db=db put key000007 seven
    ldb --db=db deleterange key010000 key020000
    ldb --db=db compact
    ldb --db=db checkconsistency
    ldb --db=db scan | sha256sum
    ldb --db=db get key000007
    ldb --db=db get key015000 || echo gone
    ldb --db=db idump | tail -n 1
    sst_dump --file=db --command=verify | grep -c 'is ok'
    ldb --db=db repair >&2
    ldb --db=db scan | wc -l
}

needs_fio() { echo fio; }
fio() {
    local engine
    for engine in psync pvsync2 mmap libaio io_uring; do
        command fio --name="$engine" --ioengine="$engine" --rw=randrw --bs=4k-64k --size=16m --iodepth=8 --numjobs=2 --fsync=50 \
            --verify=crc32c --do_verify=1 --verify_fatal=1 --fallocate=none --thread --randrepeat=1 --group_reporting >&2
        echo "$engine verified"
    done
    command fio --name=direct --ioengine=libaio --direct=1 --rw=randwrite --bs=4k --size=8m --iodepth=16 --verify=crc32c >&2 && echo direct
}

needs_stress_ng() { echo stress-ng; }
stress_ng() {
    # Those that stay below the directory that they are given. What a version does not know fails on both sides.
    local one more status
    for one in access aio chdir chmod chown copy-file dentry dir dup fallocate fcntl filename flock fpunch fsize \
        hdd link lockf lockofd mmap mmapfork msync open readahead rename seek sendfile \
        splice symlink sync-file touch utime xattr; do
        more=()
        [[ $one == mmap ]] && more=(--mmap-file --mmap-bytes 8m)
        [[ $one == hdd ]] && more=(--hdd-bytes 8m)
        status=0
        timeout 60 stress-ng --"$one" 2 "${more[@]}" --timeout 1s --verify --temp-path "$PWD" >&2 || status=$?
        echo "$one $status"
    done
}

needs_cargo() { echo "cargo gcc"; }
cargo() {
    # The crate itself, with what it depends on.
    export CARGO_TARGET_DIR=$PWD/target CARGO_TERM_COLOR=never
    (cd "$root" && command cargo build --locked 2>&1 | grep -c Compiling)
    (cd "$root" && command cargo build --locked --verbose 2>&1 | grep -c Fresh)
    find target -name '*.rlib' | sed 's/.*[/]lib//; s/-.*//' | sort | uniq -c
}

needs_fjall() { echo "cargo gcc"; }
fjall() {
    # A crate with dependencies, which is a database: both its making and its files are on the mount.
    mkdir -p crate/src
    printf '%s\n' '[package]' 'name = "keeps"' 'version = "0.1.0"' 'edition = "2021"' '[workspace]' '[dependencies]' \
        'fjall = { version = "2.11", default-features = false }' >crate/Cargo.toml
    cat >crate/src/main.rs <<'END'
fn main() -> fjall::Result<()> {
    let open = || fjall::Config::new("db").max_write_buffer_size(4 << 20).open();
    for round in 0..3_u32 {
        let keyspace = open()?;
        let part = keyspace.open_partition("t", Default::default())?;
        for i in 0..20_000_u32 {
            part.insert((round * 10_000 + i).to_be_bytes(), vec![round as u8; (i % 300) as usize])?;
        }
        for i in (0..20_000_u32).step_by(7) {
            part.remove(i.to_be_bytes())?;
        }
        keyspace.persist(fjall::PersistMode::SyncAll)?;
        part.rotate_memtable_and_wait()?;
        part.major_compact()?;
    }
    let keyspace = open()?;
    let part = keyspace.open_partition("t", Default::default())?;
    let (mut rows, mut bytes) = (0, 0);
    for row in part.iter() {
        let (key, value) = row?;
        rows += 1;
        bytes += key.len() + value.len();
    }
    println!("{rows} rows, {bytes} bytes");
    Ok(())
}
END
    (cd crate && CARGO_TARGET_DIR=$PWD/target command cargo build 2>&1 | grep -c Compiling)
    crate/target/debug/keeps
}
