#!/usr/bin/env python3
"""Makes the volumes of this directory with the kernel, as root: cram.py [crammed|stuck] IMAGE

The kernel keeps a reserve of metadata for deleting, and lets rm use half of it. But removing a file whose leaf a snapshot
shares takes a block and gives none back, and mounting anew fills the reserve on paper. So rm until it is refused, mount, and
rm again, until a dozen blocks are left. That was found with Linux 6.18; how many are left differs from run to run.

crammed: half of the snapshots are deleted then; the kernel drops them a few leaves at a time, one commit after the other.
stuck: a subvolume with a file of 10,000 extents, scattered over the whole extent tree, is deleted before the last blocks are
taken (an open file keeps the kernel from beginning). Dropping one leaf of it means to copy more than what is left: when the
kernel mounts the volume, its cleaner aborts (-28).
"""
import mmap, os, random, subprocess, sys, tempfile

SNAPSHOTS, NODE = 8, 16384


def run(*args):
    return subprocess.run(args, capture_output=True, text=True)


def main(kind, image):
    m = tempfile.mkdtemp()
    with open(image, "wb") as f:
        f.truncate(112 << 20)
    run("mkfs.btrfs", "-q", "-f", "-n", str(NODE), "-m", "single", "-d", "single", image)
    loop = run("losetup", "--show", "-f", image).stdout.strip()
    mount = lambda: run("mount", "-o", "nodiscard,max_inline=2048,commit=300", loop, m)
    sync = lambda: run("sync", "-f", m)

    def room():  # total, used, free blocks of metadata
        line = [l for l in run("btrfs", "filesystem", "df", "-b", m).stdout.splitlines() if l.startswith("Metadata")][0]
        total, used = int(line.split("total=")[1].split(",")[0]) // NODE, int(line.split("used=")[1]) // NODE
        return total, used, total - used

    mount()
    held = []
    try:
        files = 0
        while run("fallocate", "-l", "1M", f"{m}/d{files}").returncode == 0:  # no chunk can be made any more
            files += 1
        for i in range(44 if kind == "stuck" else 1):
            os.remove(f"{m}/d{i}")
        sync()
        if kind == "stuck":
            scatter(m)
        run("btrfs", "subvolume", "create", f"{m}/s0")
        n, body = 0, os.urandom(1900)
        while n % 50 or room()[1] < room()[0] * 0.3:
            with open(f"{m}/s0/f{n:05d}", "wb") as f:
                f.write(body)
            n += 1
            if n % 50 == 0:
                sync()
        names = [f"s{i}" for i in range(1, SNAPSHOTS + 1)]
        for s in names:
            run("btrfs", "subvolume", "snapshot", f"{m}/s0", f"{m}/{s}")
        todo = [f"{m}/{s}/f{j:05d}" for s in names for j in range(0, n, 8)]
        for again in range(2):
            eat(todo, room, sync, 16)
            if again == 0:
                run("umount", m)
                mount()
                if kind == "stuck":
                    held.append(os.open(f"{m}/v/big", os.O_RDONLY))
                    run("btrfs", "subvolume", "delete", "--commit-after", f"{m}/v")
        if kind == "crammed":
            run("btrfs", "subvolume", "delete", "--commit-after", *[f"{m}/{s}" for s in names[: SNAPSHOTS // 2]])
        if not run("btrfs", "subvolume", "list", "-d", m).stdout:
            print("nothing could be deleted any more: try again")
        run("cp", "--sparse=always", image, image + ".out")  # as if the power failed now
        print(room()[2], "blocks left")
    finally:
        for fd in held:
            os.close(fd)
        run("umount", m)
        run("losetup", "-d", loop)
        os.replace(image + ".out", image)


def scatter(m):
    run("btrfs", "subvolume", "create", f"{m}/v")
    buf = mmap.mmap(-1, 4096)
    buf.write(os.urandom(4096))
    order = list(range(10000))
    random.Random(1).shuffle(order)
    fd = os.open(f"{m}/v/big", os.O_RDWR | os.O_CREAT | os.O_DIRECT)
    for b in order:
        os.pwrite(fd, buf, b * 8192)
    os.close(fd)


def eat(todo, room, sync, least):
    done = 0
    while todo and room()[2] > least:
        try:
            os.remove(todo[0])
        except OSError:
            break
        todo.pop(0)
        done += 1
        free = room()[2]
        if done % (16 if free > 150 else 3 if free > 50 else 1) == 0:
            sync()
    sync()


main(sys.argv[1], sys.argv[2])
