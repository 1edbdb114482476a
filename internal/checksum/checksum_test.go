package checksum

import (
	"bytes"
	"encoding/hex"
	"strings"
	"testing"
)

// The sums of "abc" (RFC 3720's polynomial, xxHash's, FIPS 180 and RFC 7693's own vectors), stored little-endian where the
// sum is a number.
func TestSumVectors(t *testing.T) {
	for _, c := range []struct {
		typ  Type
		in   string
		want string
	}{
		{CRC32C, "123456789", "839206e3"},
		{CRC32C, strings.Repeat("\x00", 32), "aa36918a"},
		{CRC32C, strings.Repeat("\x00", 4096), "8941f998"},
		{XXHash64, strings.Repeat("\x00", 4096), "dbbbd8326f9b86ac"},
		{XXHash64, "abc", "990977adf52cbc44"},
		{XXHash64, "", "99e9d85137db46ef"},
		{SHA256, "abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
		{Blake2b, "abc", "bddd813c634239723171ef3fee98579b94964e3bb1cb3e427262c8c068d52319"},
	} {
		want, err := hex.DecodeString(c.want)
		if err != nil {
			t.Fatal(err)
		}
		got := bytes.Repeat([]byte{0xee}, c.typ.Size()+1)
		Sum(c.typ, got, []byte(c.in))
		if !bytes.Equal(got[:len(got)-1], want) {
			t.Errorf("%v of %q is %x, want %x", c.typ, c.in, got[:len(got)-1], want)
		}
		if got[len(got)-1] != 0xee {
			t.Errorf("%v wrote beyond its size", c.typ)
		}
		if !Verify(c.typ, got, []byte(c.in)) {
			t.Errorf("%v does not verify its own sum", c.typ)
		}
		got[len(got)-2] ^= 1
		if Verify(c.typ, got, []byte(c.in)) {
			t.Errorf("%v verifies a changed sum", c.typ)
		}
		if Verify(c.typ, want[:len(want)-1], []byte(c.in)) {
			t.Errorf("%v verifies a short sum", c.typ)
		}
	}
}

func TestNames(t *testing.T) {
	for typ := range Type(4) {
		if got, err := Parse(typ.String()); err != nil || got != typ || !typ.Valid() || typ.Size() == 0 {
			t.Errorf("Parse(%q) = %v, %v", typ, got, err)
		}
	}
	if _, err := Parse("md5"); err == nil {
		t.Error("md5 accepted")
	}
	if bad := Type(4); bad.Valid() || bad.Size() != 0 || Verify(bad, make([]byte, 32), nil) {
		t.Error("an unknown type is usable")
	}
}

// The hashes of real volumes, as the kernel wrote them.
func TestHashVectors(t *testing.T) {
	if got := NameHash([]byte("default")); got != 2378154706 {
		t.Errorf("default: %d", got)
	}
	if got := NameHash([]byte("user.foo")); got != 3980819260 {
		t.Errorf("user.foo: %d", got)
	}
	if a, b := NameHash([]byte("wcjifoae")), NameHash([]byte("ccaoacux")); a != 0x58976fd8 || b != a {
		t.Errorf("the known collision: %#x %#x", a, b)
	}
	if got := ExtrefHash(257, []byte("link-0619-"+strings.Repeat("y", 60))); got != 50441351 {
		t.Errorf("extref: %d", got)
	}
	if got := DataRefHash(257, 257, 0); got != 0x29740e4d280d95ea {
		t.Errorf("data ref: %#x", got)
	}
	if got := DataRefHash(256, 258, 0); got != 0x0dea30debbf5f519 {
		t.Errorf("data ref: %#x", got)
	}
	cmd, _ := hex.DecodeString("26000000" + "0100" + "00000000" + // length, SUBVOL, crc
		"0f000200" + "5331" + "01001000" + "7ec1e4989afb414ca57687ba2b7f4530" + "02000800" + "0a00000000000000")
	if got := RawCRC(0, cmd); got != 0xb48e0ae4 {
		t.Errorf("send command: %#x", got)
	}
}

func TestNoAllocation(t *testing.T) {
	p, dst := make([]byte, 4096), make([]byte, MaxSize)
	n := testing.AllocsPerRun(100, func() {
		for typ := range Type(4) {
			Sum(typ, dst, p)
			Verify(typ, dst, p)
		}
		DataRefHash(1, 2, 3)
	})
	if n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkSum(b *testing.B) {
	p, dst := make([]byte, 4096), make([]byte, MaxSize)
	for typ := range Type(4) {
		b.Run(typ.String(), func(b *testing.B) {
			b.SetBytes(int64(len(p)))
			for b.Loop() {
				Sum(typ, dst, p)
			}
		})
	}
}
