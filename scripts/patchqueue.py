# SPDX-License-Identifier: GPL-2.0-only
"""The patch queue and its git tree: what base, tree and export share.

Not named queue.py: that would hide the standard module of the same name from
every Python program in scripts/.

QUEUE_ROOT names another repository to work on; the tests use it.
"""

import contextlib
import email.utils
import errno
import fcntl
import hashlib
import os
import pathlib
import re
import shutil
import signal
import stat
import subprocess
import sys
import time

ROOT = pathlib.Path(os.environ.get("QUEUE_ROOT")
                    or pathlib.Path(__file__).parent.parent).resolve()
BUILD = ROOT / "build"
BASE_GIT = BUILD / "base.git"
PATCHES = ROOT / "patches"

# Handed to every child, so that a lock lives as long as the last of them: a
# git that outlives its killed parent still writes.
LOCKS = []


class Stop(Exception):
    """What is wrong; what to do. One line, for the person at the screen."""


class Failed(Stop):
    """A program failed; all it said is in .err."""

    def __init__(self, what, err):
        super().__init__(what)
        self.err = err


# Programs

def last_words(program, status, err):
    """The line of ERR that says what went wrong."""
    if re.search("No space left on device|Out of diskspace", err):
        return f"no space left for {BUILD}"
    lines = [line.strip() for line in err.splitlines() if line.strip()]
    said = [line for line in lines if re.match(r"(fatal|error|E):", line)]
    if lines:
        return f"{program}: {(said or lines[-1:])[0]}"
    return f"{program} ended with status {status}"


def run(*argv, stdin=b"", env=None, cwd=None, ok=(0,)):
    """Return what ARGV prints; Failed unless its status is in OK."""
    try:
        done = subprocess.run(argv, input=stdin, env=env, cwd=cwd,
                              capture_output=True, pass_fds=LOCKS)
    except FileNotFoundError as error:
        raise Stop(f"{error.filename} is missing; install it (make deps)")
    if done.returncode not in ok:
        err = done.stderr.decode(errors="replace")
        raise Failed(last_words(argv[0], done.returncode, err), err)
    return done.stdout


def plain_env():
    """The environment without what a calling git hook left in it."""
    return {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}


class Git:
    """git on one repository, with nothing of the user's configuration.

    Commit ids and patch text must be the same on every machine, so neither
    files nor the environment may have a say.
    """

    PINS = [word for pin in (
        "core.autocrlf=false", "core.eol=lf", "core.fileMode=true",
        "core.fsmonitor=false", "core.hooksPath=/dev/null",
        "core.attributesFile=/dev/null", "core.ignoreCase=false",
        "core.precomposeUnicode=false", "core.protectNTFS=false",
        "core.symlinks=true", "checkout.workers=0", "gc.auto=0",
        "safe.directory=*") for word in ("-c", pin)]

    def __init__(self, gitdir, worktree=None, objects=None, index=None):
        self.env = plain_env() | {
            "GIT_DIR": str(gitdir), "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_SYSTEM": "/dev/null", "GIT_CONFIG_GLOBAL": "/dev/null",
            "GIT_ATTR_NOSYSTEM": "1", "GIT_NO_REPLACE_OBJECTS": "1",
            "GIT_TERMINAL_PROMPT": "0", "HOME": "/nonexistent",
            "XDG_CONFIG_HOME": "/nonexistent", "LC_ALL": "C", "TZ": "UTC"}
        for key, value in (("GIT_WORK_TREE", worktree), ("GIT_INDEX_FILE", index),
                           ("GIT_OBJECT_DIRECTORY", objects)):
            if value:
                self.env[key] = str(value)
        self.cwd = worktree

    def __call__(self, *args, stdin=b"", ok=(0,)):
        return run("git", *self.PINS, *args, stdin=stdin, env=self.env,
                   cwd=self.cwd, ok=ok)

    def line(self, *args, ok=(0,)):
        return os.fsdecode(self(*args, ok=ok).strip())

    def has(self, name):
        """The id NAME stands for, or nothing."""
        try:
            return self.line("rev-parse", "--verify", "--quiet", name)
        except Failed:
            return ""


# Runs

def main(tool, usage, function, flags=()):
    """Run FUNCTION(flags given); errors are one line and status 1.

    Without flags, None, it is FUNCTION(all words).
    """
    def interrupt(*_):
        raise KeyboardInterrupt

    given = sys.argv[1:]
    signal.signal(signal.SIGTERM, interrupt)
    signal.signal(signal.SIGINT, interrupt)
    try:
        if {"-h", "--help"} & set(given):
            print(usage.strip())
            return
        for word in given:
            if flags is not None and word not in flags:
                raise Stop(f"unknown argument {word}; see scripts/{tool} --help")
        function(given if flags is None else set(given))
        sys.stdout.flush()
    except BrokenPipeError:
        os._exit(1)
    except (Exception, KeyboardInterrupt) as error:
        fail(tool, advice(tool, error))


def advice(tool, error):
    """ERROR as what is wrong; what to do."""
    again = "put that right and run it again"
    if isinstance(error, KeyboardInterrupt):
        return "interrupted; run it again to go on"
    if isinstance(error, Failed):
        return f"{error}; {again}"
    if isinstance(error, Stop):
        return error
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return f"no space left for {BUILD}; {again}"
    if isinstance(error, OSError):
        return f"{error.filename or BUILD}: {error.strerror}; {again}"
    return f"{type(error).__name__}: {error}; a fault of scripts/{tool}, report it"


def fail(tool, what):
    print(f"{tool}: {' '.join(str(what).split())}", file=sys.stderr)
    sys.exit(1)


@contextlib.contextmanager
def locked(tool):
    """Hold build/ against other runs of these tools."""
    BUILD.mkdir(parents=True, exist_ok=True)
    with open(BUILD / ".lock", "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"{tool}: waiting for another run to end", flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        LOCKS.append(file.fileno())
        try:
            yield
        finally:
            LOCKS.remove(file.fileno())


@contextlib.contextmanager
def step(tool, what):
    """Say what takes long, and in the end how long it took."""
    start = time.monotonic()
    print(f"{tool}: {what} ...", end="", flush=True)
    try:
        yield
    except BaseException:
        print(flush=True)
        raise
    print(f" {time.monotonic() - start:.1f} s", flush=True)


@contextlib.contextmanager
def scratch():
    """A folder in build/, for one run at a time: what a killed one left goes."""
    path = BUILD / ".scratch"
    remove(path)
    path.mkdir()
    try:
        yield path
    finally:
        remove(path)


def write_file(path, data, mode=0o644):
    """Replace PATH whole or not at all; the parts lie in build/."""
    temp = BUILD / ".part"
    remove(temp)
    if mode == 0o120000:
        os.symlink(data, temp)
    else:
        temp.write_bytes(data)
        temp.chmod(mode)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.replace(temp, path)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        near = path.with_name(f".{path.name}.part")
        remove(near)
        shutil.copy2(temp, near, follow_symlinks=False)
        os.replace(near, path)


def remove(path):
    """Make PATH not exist, whatever it is."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


# The base

def read_pin():
    """The KEY=value lines of the file `base`."""
    try:
        lines = (ROOT / "base").read_text().splitlines()
    except FileNotFoundError:
        raise Stop(f"{ROOT}/base is missing; restore it from git")
    pin = dict(line.split("=", 1) for line in lines
               if "=" in line and not line.startswith("#"))
    for key in ("PACKAGE", "SUITE", "VERSION", "TREE", "LINUX_VERSION"):
        if not pin.get(key):
            raise Stop(f"base has no {key}=; restore it from git")
    return pin


def base_source(pin):
    """What the base is to be made of: a kind, a place and a key.

    The key names one content: when base.git was made from it, there is
    nothing to do.
    """
    linux, ksrc = (os.environ.get(k, "") for k in ("LINUX", "KSRC"))
    if linux and ksrc:
        raise Stop("LINUX= and KSRC= are both set; give one of them")
    if ksrc:
        place = pathlib.Path(ksrc).resolve()
        if not (place / "Makefile").is_file():
            raise Stop(f"KSRC={ksrc} is no kernel tree; give an unpacked one")
        stamp = (place / "Makefile").stat().st_mtime_ns
        return "ksrc", place, f"ksrc {place} {stamp} {pin['TREE']}"
    if linux:
        place, commit = linux_commit(linux)
        return "linux", place, f"linux {place} {commit}"
    return "package", None, f"package {pin['VERSION']} {pin['TREE']}"


def linux_commit(linux):
    """The object store of the clone LINUX, and the commit BASE in it."""
    base = os.environ.get("BASE", "")
    if not base:
        raise Stop("LINUX= needs BASE=; give the commit, as in BASE=v7.3")
    place = pathlib.Path(linux).resolve()
    argv = ["git", *Git.PINS, "-C", str(place), "rev-parse"]
    env = plain_env()
    try:
        found = run(*argv, "--path-format=absolute", "--git-path", "objects",
                    env=env)
    except Failed:
        raise Stop(f"LINUX={linux} is no git clone; give the path of one")
    try:
        commit = run(*argv, "--verify", "--quiet", "--end-of-options",
                     f"{base}^{{commit}}", env=env)
    except Failed:
        raise Stop(f"LINUX={linux} has no commit BASE={base}; fetch it there "
                   "or name another")
    return os.fsdecode(found.strip()), commit.decode().strip()


def base_commit(key):
    """The base commit if base.git was made from KEY and is whole, else ''."""
    try:
        kept = (BASE_GIT / "queue-source").read_text().split("\n")
    except FileNotFoundError:
        return ""
    if kept[0] != key:
        return ""
    git = Git(BASE_GIT)
    commit = git.has("refs/tags/base^{commit}")
    return commit if git.has("refs/tags/base^{tree}") else ""


def need_base():
    """Make base.git fit, by scripts/base where needed; return the commit."""
    key = base_source(read_pin())[2]
    commit = base_commit(key)
    if not commit:
        tool = pathlib.Path(__file__).with_name("base")
        try:
            status = subprocess.run([sys.executable, tool]).returncode
        except FileNotFoundError:
            raise Stop(f"{tool} is missing; restore it from git")
        except KeyboardInterrupt:
            status = 1
        if status:
            sys.exit(1)
        commit = base_commit(key)
    if not commit:
        raise Stop("build/base.git changed under this run; run it again")
    return commit


# Patches

FROM = b"From " + b"0" * 40 + b" Mon Sep 17 00:00:00 2001\n"

# What `git am` takes for the end of a message, for a header or for the next
# mail. A message with such a line cannot travel.
UNSAFE = re.compile(rb"^(---\s*$|--- \S|diff -|Index: |.*\r"
                    rb"|From .*\d\d:\d\d.* \d{4}\s*$)"
                    rb"|\A\s*(?i:(from|subject|date):|>from\s|\[patch\]).*", re.M)

SPECIALS = set('()<>[]:;@\\,."')


class Patch:
    """One patch of the queue.

    name      file name in patches/, source: its bytes
    author    "Name <mail>", date "epoch zone": as a commit holds them
    subject   one line; body: bytes, no blank line at either end
    new       paths of the files it brings in
    diff      the hunks, git's form, upstream files and growth
    parts     the diff cut by file: [(path, bytes)], filled by cut()
    """

    def __init__(self, name, author, date, subject, body, new, diff):
        self.name, self.author, self.date = name, author, date
        self.subject, self.body = subject, body
        self.new, self.diff, self.parts = new, diff, None
        self.source = None

    def message(self):
        body = b"\n" + self.body + b"\n" if self.body else b""
        return os.fsencode(self.subject) + b"\n" + body

    def text(self):
        """The file in patches/."""
        name, mail = self.author.rsplit("<", 1)
        name = name.strip()
        if SPECIALS & set(name):
            name = '"' + re.sub(r'(["\\])', r"\\\1", name) + '"'
        head = (f"From: {name} <{mail}\n".replace("From:  <", "From: <")
                + f"Date: {mail_date(self.date)}\n"
                + f"Subject: [PATCH] {self.subject}\n\n")
        new = b"".join(b"New-file: " + os.fsencode(p) + b"\n"
                       for p in self.new)
        return (FROM + os.fsencode(head)
                + (self.body + b"\n" if self.body else b"") + b"---\n" + new
                + (b"\n" + self.diff if self.diff else b""))

    def cut(self, git):
        """Fill .parts. The names are git's own reading of the diff."""
        if self.parts is not None:
            return
        chunks = re.split(rb"^(?=diff --git )", self.diff, flags=re.M)[1:]
        try:
            out = git("apply", "--numstat", "-z", stdin=self.diff) \
                if chunks else b""
        except Failed as error:
            raise Stop(f"patches/{self.name} is damaged ({error}); "
                       "restore it from git")
        names = [os.fsdecode(x.split(b"\t", 2)[2])
                 for x in out.split(b"\0")[:-1]]
        if len(names) != len(chunks):
            raise Stop(f"patches/{self.name} is damaged; restore it from git")
        self.parts = list(zip(names, chunks))


def made(part):
    """True if this part of a diff makes its file."""
    return re.search(rb"\A.*\nnew file mode ", part) is not None


def gone(part):
    return re.search(rb"\A.*\ndeleted file mode ", part) is not None


def mail_date(date):
    """'epoch zone' in the form of a mail's Date:."""
    seconds, zone = date.split()
    shift = int(zone[1:3]) * 3600 + int(zone[3:]) * 60
    shift = -shift if zone[0] == "-" else shift
    text = email.utils.formatdate(int(seconds) + shift)
    return text.rsplit(" ", 1)[0] + " " + zone


def parse_date(text):
    """A mail's Date: as 'epoch zone'; ValueError if it is none."""
    parts = email.utils.parsedate_tz(text)
    zone = re.search(r"(\+|-(?!0000))\d{4}$", text.strip())
    if not parts or not zone:
        raise ValueError(text)
    seconds = email.utils.mktime_tz(parts)
    if seconds < 0:
        raise ValueError(text)
    return f"{seconds} {zone[0]}"


def parse_author(text):
    """'Name <mail>' from a From: header; ValueError if it is none."""
    found = re.fullmatch(r"(.*?)\s*<([^<>\n]*)>", text.strip())
    if not found:
        raise ValueError(text)
    name = found[1]
    if re.fullmatch(r'".*"', name):
        name = re.sub(r"\\(.)", r"\1", name[1:-1])
    if re.search(r"[<>]", name):
        raise ValueError(text)
    return f"{name} <{found[2]}>".lstrip()


def parse_patch(name, data):
    """A Patch from its file."""
    where = f"patches/{name}"
    head, _, rest = data.partition(b"\n\n")
    if not data.startswith(b"From "):
        raise Stop(f"{where} does not begin with a From line; git am it in "
                   "build/linux and make export")
    text = re.sub(r"\n[ \t]+", " ", os.fsdecode(head))
    headers = dict(re.findall(r"^(From|Date|Subject):[ \t]*(.*)$", text, re.M))
    try:
        author, date = parse_author(headers["From"]), parse_date(headers["Date"])
        subject = headers["Subject"].strip()
    except (KeyError, ValueError):
        raise Stop(f"{where} lacks a good From:, Date: or Subject:; mend it")
    subject = subject.removeprefix("[PATCH] ")
    body, cut, rest = (b"\n" + rest).partition(b"\n---\n")
    if not cut or not subject:
        raise Stop(f"{where} has no --- line after its message; mend it")
    start = re.search(rb"^diff --git ", rest, re.M)
    diff = rest[start.start():] if start else b""
    notes = os.fsdecode(rest[:start.start()] if start else rest)
    return Patch(name, author, date, subject, body.strip(b"\n"),
                 parse_notes(where, notes), diff)


def parse_notes(where, notes):
    """The New-file: paths. Nothing else below --- would survive an export."""
    new = []
    for line in filter(None, notes.split("\n")):
        key, colon, path = line.partition(": ")
        if key != "New-file" or not colon:
            raise Stop(f"{where} has below --- the line '{line[:40]}'; only "
                       "New-file: can stand there, notes go to a cover letter")
        new.append(path)
    return new


# Own to the repository; a kernel file of that name has nowhere to live.
RESERVED = {"scripts", "configs", "patches", "build", "LICENSES"}


def bad_path(path):
    """Why PATH cannot be a new file of the queue, or ''."""
    parts = path.split("/")
    if (path.startswith("/") or {"", ".", ".."} & set(parts)
            or any(p.lower() == ".git" for p in parts)
            or re.search(r"[\x00-\x1f\x7f]", path) or path != path.strip()):
        return "is no path inside the tree"
    if len(parts) == 1 or parts[0] in RESERVED or path.startswith("."):
        return "is a place of the repository's own"
    return ""


# The queue in the repository

MARK = re.compile(r"#\s*topic:\s*(.*?)\s*")


def read_topics():
    """{topic: patch file names} of patches/series, both in order.

    A comment '# topic: NAME' begins a topic. Without any, all is topic ''.
    """
    try:
        text = (PATCHES / "series").read_text()
    except FileNotFoundError:
        raise Stop("patches/series is missing; restore it, or make an empty one")
    topics, topic, seen = {}, "", set()
    for line in text.splitlines():
        mark = MARK.fullmatch(line)
        if mark:
            topic = mark[1]
            if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", topic):
                raise Stop(f"patches/series: topic '{topic}' is no name; write "
                           "words-like-this")
            if topic in topics:
                raise Stop(f"patches/series begins topic '{topic}' twice; drop one")
            topics[topic] = []
        name = line.split("#")[0].strip()
        if not name:
            continue
        if not re.fullmatch(r"[A-Za-z0-9][\w.+-]*\.patch", name):
            raise Stop(f"patches/series: '{name}' is no name of a patch file; "
                       "write <slug>.patch")
        if name in seen:
            raise Stop(f"patches/series lists {name} twice; drop one")
        seen.add(name)
        topics.setdefault(topic, []).append(name)
    if "" in topics and len(topics) > 1:
        raise Stop(f"patches/series: {topics[''][0]} stands above the first topic; "
                   "put a line '# topic: NAME' above it")
    return topics


def read_series():
    """Patch file names in order."""
    return [name for names in read_topics().values() for name in names]


def read_queue():
    """The patches of patches/series."""
    names = read_series()
    for path in sorted(PATCHES.glob("*.patch")):
        if path.name not in names:
            raise Stop(f"patches/{path.name} is not in patches/series; add it "
                       "there or delete it")
    patches = []
    for name in names:
        try:
            data = (PATCHES / name).read_bytes()
        except FileNotFoundError:
            raise Stop(f"patches/{name} is in patches/series but missing; "
                       "restore it or drop the line")
        patches.append(parse_patch(name, data))
        patches[-1].source = data
    for patch in patches:
        for path in patch.new:
            if bad_path(path):
                raise Stop(f"patches/{patch.name}: New-file {path} "
                           f"{bad_path(path)}; choose another")
    return patches


def read_entry(path):
    """(git mode, bytes) of PATH in the repository, or None."""
    full = ROOT / path
    if full.parent.resolve() != full.parent:
        raise Stop(f"{path} lies behind a symbolic link; replace the link by a "
                   "directory")
    try:
        info = full.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    if stat.S_ISLNK(info.st_mode):
        return "120000", os.fsencode(os.readlink(full))
    if not stat.S_ISREG(info.st_mode):
        raise Stop(f"{path} is no file; move it away")
    mode = "100755" if info.st_mode & stat.S_IXUSR else "100644"
    return mode, full.read_bytes()


def read_overlay(patches):
    """{path: (mode, bytes)} of the listed files that are there."""
    listed = (path for patch in patches for path in patch.new)
    found = {path: read_entry(path) for path in dict.fromkeys(listed)}
    return {path: entry for path, entry in found.items() if entry}


def digest(mode, data):
    return f"{mode} {hashlib.sha256(data).hexdigest()}"


def manifest(patches, overlay):
    """What the queue's files hold: {path: 'mode sha256'}, patches in order."""
    files = {f"patches/{p.name}": ("100644", p.source) for p in patches}
    return {path: digest(*entry) for path, entry in (files | overlay).items()}


# Commits from the queue

def blob_id(data):
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


class Index:
    """A scratch index: {path: (mode, blob id)}, no work tree behind it."""

    def __init__(self, folder, objects):
        self.git = Git(BASE_GIT, objects=objects, index=folder / "index")
        self.entries = {}

    def put(self, entries):
        """Set paths; None removes one."""
        lines = [b"%s %s\t%s\0" % (mode.encode(), oid.encode(), os.fsencode(p))
                 for p, (mode, oid) in
                 ((p, e or ("0", "0" * 40)) for p, e in entries.items())]
        if lines:
            self.git("update-index", "-z", "--index-info", stdin=b"".join(lines))
            self.load()

    def load(self):
        self.entries = {}
        for line in self.git("ls-files", "-s", "-z").split(b"\0")[:-1]:
            head, path = line.split(b"\t", 1)
            mode, oid, _ = head.decode().split()
            self.entries[os.fsdecode(path)] = (mode, oid)

    def apply(self, parts, *options):
        """Apply parts of a diff, without fuzz. Failed says where it failed."""
        if parts:
            self.git("apply", "--cached", "--whitespace=nowarn", *options,
                     stdin=b"".join(part for _, part in parts))
            self.load()


def where_failed(error, parts):
    """file:line of the first hunk that git refused."""
    found = (re.search(r"patch failed: (.*)", error.err)
             or re.search(r"error: (.*?): ", error.err)
             or re.search(r"Applied patch to '(.*)' with conflicts", error.err)
             or re.search(r"^U (.*)", error.err, re.M))
    return found[1] if found else parts[0][0]


def base_files(git, base):
    """{path: (mode, blob id)} of the base, and the set of its directories."""
    files = {}
    for line in git("ls-tree", "-r", "-z", base).split(b"\0")[:-1]:
        head, path = line.split(b"\t", 1)
        mode, _, oid = head.decode().split()
        files[os.fsdecode(path)] = (mode, oid)
    folders = {path.rsplit("/", 1)[0] for path in files if "/" in path}
    for folder in list(folders):
        while "/" in folder:
            folder = folder.rsplit("/", 1)[0]
            folders.add(folder)
    return files, folders


def check_new(patch, path, files, folders):
    """Stop unless PATH is free in the base."""
    head = path
    where = f"patches/{patch.name}: New-file {path}"
    if path in files or path in folders:
        raise Stop(f"{where} is in the base; upstream files change by hunks only")
    while "/" in head:
        head = head.rsplit("/", 1)[0]
        if head in files:
            raise Stop(f"{where} lies below {head}, a file in the base; choose "
                       "another place")


def check_queue(patches, overlay, files, folders):
    """Stop where the queue contradicts itself, the base or the repository."""
    alive = {}
    for patch in patches:
        if not patch.new and not patch.parts:
            raise Stop(f"patches/{patch.name} changes nothing; drop it")
        check_parts(patch, alive, files)
        for path in patch.new:
            check_new(patch, path, files, folders)
            if alive.get(path):
                raise Stop(f"patches/{patch.name}: New-file {path} is listed "
                           "before; drop one")
            alive[path] = True
    for path, there in alive.items():
        last = [p.name for p in patches if path in p.new][-1]
        if there and path not in overlay:
            raise Stop(f"{path} is missing, New-file in patches/{last}; restore it")
        if not there and path in overlay:
            raise Stop(f"{path} is there, but a patch after patches/{last} deletes "
                       "it; delete it")


def check_parts(patch, alive, files):
    """Stop where PATCH changes what is not there; keep ALIVE up to date."""
    here = f"patches/{patch.name}"
    back = {path for path, part in patch.parts if made(part)}
    for path, part in patch.parts:
        if re.search(rb"^(rename|copy) from ", part.split(b"\n@@")[0], re.M):
            raise Stop(f"{here} renames {path}; git am it in build/linux and make "
                       "export")
        if path in files:
            continue
        if not alive.get(path):
            raise Stop(f"{here} changes {path}, which no patch before it brings "
                       "in; list it there as New-file")
        alive[path] = not gone(part) or path in back


def first_forms(patches, overlay, index):
    """[{path: (mode, id)}]: each patch's new files as it brings them in.

    The repository holds the last form, so later hunks are taken off again,
    from the last patch to the first.
    """
    index.put({p: (mode, blob_id(data)) for p, (mode, data) in overlay.items()})
    listed = {path for patch in patches for path in patch.new}
    forms = []
    for patch in reversed(patches):
        forms.append({path: index.entries[path] for path in patch.new})
        index.put(dict.fromkeys(patch.new))
        grown = [x for x in patch.parts if x[0] in listed]
        try:
            index.apply(grown, "-R")
        except Failed as error:
            raise grown_stop(patch, where_failed(error, grown))
    return forms[::-1]


def grown_stop(patch, where):
    return Stop(f"{where} was edited inside what patches/{patch.name} changes; "
                "undo that, edit it in build/linux and make export")


def apply_patch(patch, index, listed, base, threeway):
    """Bring the index from before PATCH to after it, new files aside."""
    grown = [x for x in patch.parts if x[0] in listed]
    other = [x for x in patch.parts if x[0] not in listed]
    try:
        index.apply(grown)
    except Failed as error:
        raise grown_stop(patch, where_failed(error, grown))
    try:
        index.apply(other, *(["--3way"] if threeway else []))
    except Failed as error:
        what = ("lay the pinned base, then in build/linux: git rebase --onto "
                f"{base[:12]} base" if threeway
                else "mend the patch, or undo what changed it")
        raise Stop(f"patches/{patch.name} does not apply to "
                   f"{where_failed(error, other)}; {what}")


def quote(path):
    return b'"' + re.sub(rb'(["\\])', rb"\\\1", os.fsencode(path)) + b'"'


def commit_text(patch, mark, parent, before, after):
    """One commit for git fast-import. The committer is the author."""
    who = os.fsencode(f"{patch.author} {patch.date}")
    if who.startswith(b"<"):
        who = b" " + who
    message = patch.message()
    lines = [b"commit refs/queue/new", b"mark :%d" % mark, b"author " + who.strip(),
             b"committer " + who.strip(), b"data %d" % len(message), message,
             b"from " + parent]
    lines += [b"D " + quote(p) for p in before if p not in after]
    lines += [b"M %s %s %s" % (e[0].encode(), e[1].encode(), quote(p))
              for p, e in after.items() if before.get(p) != e]
    return b"\n".join(lines) + b"\n"


def build_commits(patches, overlay, checkout, base, threeway):
    """The queue as commits on BASE, in CHECKOUT's objects; return their ids.

    Neither work tree nor branch is touched.
    """
    with scratch() as folder:
        objects = checkout.dir / "objects"
        git = Git(BASE_GIT, objects=objects)
        for patch in patches:
            patch.cut(git)
        files, folders = base_files(git, base)
        check_queue(patches, overlay, files, folders)
        store = b"".join(b"blob\ndata %d\n%s\n" % (len(data), data)
                         for _, data in overlay.values())
        checkout.git("fast-import", "--quiet", stdin=store)
        (folder / "back").mkdir()
        forms = first_forms(patches, overlay, Index(folder / "back", objects))
        index = Index(folder, objects)
        stream = series_text(patches, forms, index, base, files, threeway)
        check_last(patches, overlay, index)
        marks = folder / "marks"
        checkout.git("fast-import", "--quiet", "--force",
                     f"--export-marks={marks}", stdin=b"".join(stream))
        ids = dict(x.split() for x in marks.read_text().splitlines())
        return [ids[f":{n + 1}"] for n in range(len(patches))]


def series_text(patches, forms, index, base, files, threeway):
    """The commits for git fast-import; leaves INDEX at the last one."""
    touched = {path for patch in patches for path, _ in patch.parts}
    listed = {path for patch in patches for path in patch.new}
    index.put({path: files[path] for path in touched if path in files})
    stream, parent = [], base.encode()
    for n, (patch, form) in enumerate(zip(patches, forms), 1):
        before = index.entries
        apply_patch(patch, index, listed, base, threeway)
        index.put(form)
        if index.entries == before:
            raise Stop(f"patches/{patch.name} changes nothing on this base; "
                       "drop it")
        stream.append(commit_text(patch, n, parent, before, index.entries))
        parent = b":%d" % n
    return stream


def check_last(patches, overlay, index):
    """Stop if the last commit does not hold the repository's files.

    A hunk of growth can apply in the wrong place; this is where it shows.
    """
    for path, (mode, data) in overlay.items():
        if index.entries.get(path) != (mode, blob_id(data)):
            last = [p for p in patches if path in p.new or
                    path in dict(p.parts)][-1]
            raise grown_stop(last, path)


# The checkout

class Checkout:
    """A git work tree in build/ that borrows its objects from base.git.

    .git/queue       what it was made from: commit, base, manifest
    .git/queue.next  the same for a move under way; present = interrupted
    """

    CONFIG = {"core.abbrev": "12", "core.autocrlf": "false",
              "core.eol": "lf", "core.fileMode": "true",
              "core.untrackedCache": "true", "checkout.workers": "0",
              "gc.auto": "0", "index.version": "4"}

    def __init__(self, name):
        self.name = name
        self.at(BUILD / name)

    def at(self, path):
        self.path, self.dir = path, path / ".git"
        self.git = Git(self.dir, worktree=path)

    def exists(self):
        if not self.path.exists():
            return False
        if not (self.dir / "queue").exists():
            raise Stop(f"build/{self.name} was not made by make tree; move it away")
        return True

    def create(self):
        """A fresh one with no files, at a name of its own until finish()."""
        self.at(BUILD / f"{self.name}.new")
        remove(self.path)
        self.path.mkdir(parents=True)
        self.git("init", "--quiet", "--template=", "--object-format=sha1",
                 "--initial-branch=series")
        for key, value in self.CONFIG.items():
            self.git("config", key, value)
        for folder in ("info", "objects/info"):
            (self.dir / folder).mkdir(parents=True, exist_ok=True)
        (self.dir / "info/exclude").write_text(".checkpatch-camelcase.*\n")
        (self.dir / "objects/info/alternates").write_text(
            os.path.relpath(BASE_GIT / "objects", self.dir / "objects") + "\n")

    def read(self, name="queue"):
        """(commit, base, manifest) from .git/NAME, or None."""
        try:
            lines = (self.dir / name).read_text(
                errors="surrogateescape").splitlines()
        except FileNotFoundError:
            return None
        files = dict(reversed(x.split("\t", 1)) for x in lines[2:])
        return lines[0], lines[1], files

    def write(self, name, commit, base, files):
        text = "".join(f"{x}\n" for x in (
            commit, base, *(f"{v}\t{k}" for k, v in files.items())))
        write_file(self.dir / name, os.fsencode(text))

    def head(self):
        return self.git.has("HEAD")

    def on_series(self):
        return self.git("symbolic-ref", "--quiet", "HEAD",
                        ok=(0, 1)) == b"refs/heads/series\n"

    def user_git(self, *args):
        """git as the developer would run it there, but for needless locks:
        killed, it would leave them behind.
        """
        return run("git", "-c", "safe.directory=*", "-c", "gc.auto=0", *args,
                   env=plain_env() | {"GIT_OPTIONAL_LOCKS": "0"}, cwd=self.path)

    def status(self):
        """Paths that differ from HEAD or are new and not ignored.

        Asked with the user's own configuration: what they ignore everywhere
        is ignored here.
        """
        out = self.user_git("status", "--porcelain", "-z", "--no-renames",
                            "--untracked-files=all", "--ignore-submodules=none")
        return [os.fsdecode(x[3:]) for x in out.split(b"\0")[:-1]]

    def hidden(self):
        """An untracked source file that the tree's own .gitignore covers.

        Debian's ends with "/*": without a look of its own a forgotten git add
        -f would lose the file. Builds go elsewhere, so nothing here is made.
        """
        out = self.git("ls-files", "-z", "--others", "--ignored",
                       "--exclude-per-directory=.gitignore")
        for path in map(os.fsdecode, out.split(b"\0")[:-1]):
            if re.search(r"(\.[chS]|\.rst|\.sh|\.py|/Makefile|/Kconfig)$", path):
                return path
        return ""

    def busy(self):
        """What a person has under way in it, or ''."""
        for name, what in (("rebase-merge", "a rebase"),
                           ("rebase-apply", "a rebase or am"),
                           ("MERGE_HEAD", "a merge"), ("BISECT_LOG", "a bisect"),
                           ("CHERRY_PICK_HEAD", "a cherry-pick"),
                           ("REVERT_HEAD", "a revert")):
            if (self.dir / name).exists():
                return what
        return ""

    def dirt(self):
        """What is not committed, in a few words, or ''."""
        if self.busy():
            return f"{self.busy()} under way"
        hidden = self.hidden()
        if hidden:
            return f"a new file that .gitignore hides (git add -f {hidden})"
        paths = self.status()
        more = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
        return f"uncommitted changes ({paths[0]}{more})" if paths else ""

    def commits(self, tip, base):
        """(tree, author, message) of the commits from BASE to TIP."""
        out = self.git("log", "--reverse", "-z", "--format=%T %an <%ae> %ad%n%B",
                       "--date=raw", f"{base}..{tip}", "--")
        return [x.strip() for x in out.split(b"\0") if x]

    def unlock(self):
        """Drop locks of a run of ours that was killed."""
        for name in ("index", "HEAD", "refs/heads/series", "refs/tags/base"):
            (self.dir / f"{name}.lock").unlink(missing_ok=True)

    def check_lock(self):
        if (self.dir / "index.lock").exists():
            raise Stop(f"build/{self.name}/.git/index.lock is there; end the git "
                       "that holds it, or delete it if none runs")

    def move(self, commit, base, files, force=False):
        """Bring work tree and branch to COMMIT; unchanged files stay as they are.

        The caller has seen to it that nothing is lost.
        """
        old = self.head()
        if force:
            for command in ("rebase", "am", "cherry-pick", "revert", "merge"):
                self.git(command, "--quit", ok=range(256))
            remove(self.dir / "BISECT_LOG")
        self.write("queue.next", commit, base, files)
        if force or not old:
            self.git("read-tree", "--reset", "-u", commit)
        else:
            self.git("update-index", "-q", "--refresh", ok=(0, 1))
            self.git("read-tree", "-m", "-u", old, commit)
        if force:
            self.user_git("clean", "-ffdq")
        self.finish()

    def finish(self):
        """The rest of a move, after the files."""
        commit, base, _ = self.read("queue.next")
        self.git("update-ref", "-m", "make tree", "--no-deref",
                 "refs/heads/series", commit)
        self.git("update-ref", "refs/tags/base", base)
        self.git("symbolic-ref", "HEAD", "refs/heads/series")
        os.replace(self.dir / "queue.next", self.dir / "queue")
        if self.path != BUILD / self.name:
            os.replace(self.path, BUILD / self.name)
            self.at(BUILD / self.name)

    def recover(self, force=False):
        """Carry an interrupted move to its end, edits made since excepted."""
        move = self.read("queue.next")
        if not move:
            return
        self.unlock()
        ours = self.half_done(self.head(), move[0])
        lost = [] if force else [p for p in self.status() if p not in ours]
        if lost:
            raise Stop(f"build/{self.name} was left half-done and {lost[0]} "
                       "edited since; save that edit, then make tree FORCE=1")
        self.git("read-tree", "--reset", "-u", move[0])
        self.finish()

    def half_done(self, old, new):
        """The paths an interrupted move from OLD to NEW may have left odd.

        That is: as in OLD, gone, or some first part of NEW. Anything else
        is a person's.
        """
        ours = set()
        out = self.git("diff-tree", "-r", "-z", "--no-renames", "--raw", old, new)
        fields = out.split(b"\0")
        for head, path in zip(fields[0::2], fields[1::2]):
            full = self.path / os.fsdecode(path)
            ids = head.decode().split()[2:4]
            blobs = [b"" if not int(i, 16) else self.git("cat-file", "blob", i)
                     for i in ids]
            try:
                data = os.fsencode(os.readlink(full)) if full.is_symlink() \
                    else full.read_bytes()
            except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
                data = b""
            if data == blobs[0] or blobs[1].startswith(data):
                ours.add(os.fsdecode(path))
        return ours
