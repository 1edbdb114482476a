package raid56

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"testing"
)

// TestRecover loses every one and two columns, with and without parities, and
// compares what is rebuilt.
func TestRecover(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for _, d := range []int{1, 2, 3, 5, 8} {
		data := make([][]byte, d)
		for j := range data {
			data[j] = make([]byte, 97)
			for i := range data[j] {
				data[j][i] = byte(rnd.Uint32())
			}
		}
		p, q := make([]byte, 97), make([]byte, 97)
		P(p, data...)
		Q(q, data...)
		for x := range d {
			try(t, data, p, nil, x)
			try(t, data, nil, q, x)
			for y := x + 1; y < d; y++ {
				try(t, data, p, q, x, y)
				if _, err := Recover(without(data, x, y), p, nil); !errors.Is(err, ErrTooManyLost) {
					t.Errorf("two lost, one parity: got %v", err)
				}
			}
		}
	}
}

func without(data [][]byte, lost ...int) [][]byte {
	in := append([][]byte{}, data...)
	for _, x := range lost {
		in[x] = nil
	}
	return in
}

func try(t *testing.T, data [][]byte, p, q []byte, lost ...int) {
	t.Helper()
	out, err := Recover(without(data, lost...), p, q)
	if err != nil {
		t.Fatalf("%d columns, lost %v: %v", len(data), lost, err)
	}
	for j := range data {
		if !bytes.Equal(out[j], data[j]) {
			t.Errorf("%d columns, lost %v: column %d differs", len(data), lost, j)
		}
	}
}

// TestQVector: Q by hand. Columns 1, 2, 4 give 1 + 2·2 + 4·4 = 1^4^16.
func TestQVector(t *testing.T) {
	q := make([]byte, 1)
	Q(q, []byte{1}, []byte{2}, []byte{4})
	if q[0] != 1^4^16 {
		t.Errorf("got %#x, want %#x", q[0], 1^4^16)
	}
	if mul(0x80, 2) != 0x1d {
		t.Errorf("0x80·2 = %#x, want 0x1d", mul(0x80, 2))
	}
}

// TestQSlow compares Q with its definition, at lengths around the word size.
func TestQSlow(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 4))
	for n := range 40 {
		data := make([][]byte, 7)
		want := make([]byte, n)
		for j := range data {
			data[j] = make([]byte, n)
			for i := range data[j] {
				data[j][i] = byte(rnd.Uint32())
				want[i] ^= mul(pow(j), data[j][i])
			}
		}
		q := make([]byte, n)
		if Q(q, data...); !bytes.Equal(q, want) {
			t.Errorf("%d bytes: got %x, want %x", n, q, want)
		}
	}
}

func BenchmarkQ(b *testing.B) {
	data := make([][]byte, 4)
	for j := range data {
		data[j] = make([]byte, 64<<10)
	}
	q := make([]byte, 64<<10)
	b.SetBytes(4 * 64 << 10)
	for b.Loop() {
		Q(q, data...)
	}
}
