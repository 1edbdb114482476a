package compat

import (
	"bytes"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/binary"
	"encoding/hex"
	"hash"
	"testing"

	"github.com/gobtrfs/gobtrfs/btrfs"
	"github.com/gobtrfs/gobtrfs/internal/ondisk"
	"github.com/gobtrfs/gobtrfs/internal/testenv"
)

// Places in the descriptor of a file with fs-verity (Linux, Documentation/filesystems/fsverity.rst).
const (
	veritySize   = 256
	verityHash   = 1 // u8: 1 is SHA-256, 2 is SHA-512
	verityBlock  = 2 // u8: logarithm of the block size
	veritySalted = 3 // u8: bytes of salt
	veritySigned = 4 // u32: bytes of signature
	verityRoot   = 16
	veritySalt   = 80
)

// TestVerity: of every file with fs-verity, the stored descriptor has the digest that the kernel gives out, the stored
// Merkle tree is that of the contents as we read them, and the descriptor holds its root.
func TestVerity(t *testing.T) {
	image := testenv.Image(t, "verity")
	items := allItems(t, []string{image})
	v, err := btrfs.Open(ctx, image, btrfs.Options{ReadOnly: true})
	must(t, err)
	defer v.Close()
	seen := 0
	for _, e := range testenv.ReadManifest(t, "verity", "").Entries {
		want, ok := e.Verity.(map[string]any)
		if !ok {
			continue
		}
		seen++
		t.Run(e.Path, func(t *testing.T) {
			desc := joined(items, e.Ino, ondisk.TypeVerityDesc, 1)[:veritySize]
			algorithm, name := sha256.New, "sha256"
			if desc[verityHash] == 2 {
				algorithm, name = sha512.New, "sha512"
			}
			unsigned := bytes.Clone(desc)
			clear(unsigned[veritySigned : veritySigned+4])
			h := algorithm()
			h.Write(unsigned)
			if got := hex.EncodeToString(h.Sum(nil)); name != want["algorithm"] || got != want["digest"] {
				t.Errorf("%s %s, want %s", name, got, want)
			}
			data, err := v.Top().ReadFile(e.Path[1:])
			must(t, err)
			tree, root := merkle(algorithm, desc[veritySalt:][:desc[veritySalted]], data, 1<<desc[verityBlock])
			if n := binary.LittleEndian.Uint64(desc[8:]); n != uint64(len(data)) || !bytes.Equal(root, desc[verityRoot:][:len(root)]) {
				t.Errorf("%d bytes with root %x, want %d with %x", len(data), root, n, desc[verityRoot:][:len(root)])
			}
			if stored := joined(items, e.Ino, ondisk.TypeVerityMerkle, 0); !bytes.Equal(bytes.TrimRight(tree, "\x00"), bytes.TrimRight(stored, "\x00")) {
				t.Errorf("a tree of %d bytes, want %d", len(stored), len(tree))
			}
		})
	}
	if seen < 7 {
		t.Errorf("only %d files", seen)
	}
}

// joined puts the items of one kind together, from a position on.
func joined(items map[item]string, ino uint64, kind ondisk.KeyType, at uint64) (out []byte) {
	for {
		b, ok := items[item{ondisk.Key{Objectid: ino, Type: kind, Offset: at}, ondisk.FSTree}]
		if !ok || b == "" {
			return out
		}
		out, at = append(out, b...), at+uint64(len(b))
	}
}

// merkle gives the levels of a Merkle tree, the topmost first, each padded to blocks, and its root.
func merkle(algorithm func() hash.Hash, salt, data []byte, block int) (tree, root []byte) {
	h := algorithm()
	if pad := len(salt) % h.BlockSize(); pad > 0 {
		salt = append(bytes.Clone(salt), make([]byte, h.BlockSize()-pad)...)
	}
	if len(data) == 0 {
		return nil, make([]byte, h.Size())
	}
	for level := data; ; {
		var sums []byte
		for at := 0; at < len(level); at += block {
			h.Reset()
			h.Write(salt)
			part := level[at:min(at+block, len(level))]
			h.Write(part)
			h.Write(make([]byte, block-len(part)))
			sums = h.Sum(sums)
		}
		if len(sums) == h.Size() {
			return tree, sums
		}
		padded := append(sums, make([]byte, (block-len(sums)%block)%block)...)
		tree, level = append(bytes.Clone(padded), tree...), padded
	}
}
