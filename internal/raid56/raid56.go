// Package raid56 computes the parities of RAID5 and RAID6 rows and rebuilds lost
// columns from them.
//
// P is the xor of the data columns. Q is the sum over column j of g^j·D_j in
// GF(2^8) with the polynomial 0x11d and g = 2 (FORMAT: "Stripe math"). All
// columns of a call have one length, which may be any part of a row.
package raid56

import (
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"fmt"
)

// ErrTooManyLost: more columns are lost than there are parities.
var ErrTooManyLost = errors.New("more columns are lost than parity can rebuild")

// mul multiplies in GF(2^8) modulo 0x11d.
func mul(a, b byte) byte {
	var p byte
	for ; b != 0; b >>= 1 {
		if b&1 != 0 {
			p ^= a
		}
		carry := a & 0x80
		a <<= 1
		if carry != 0 {
			a ^= 0x1d
		}
	}
	return p
}

func pow(n int) byte {
	p := byte(1)
	for range n % 255 {
		p = mul(p, 2)
	}
	return p
}

// inverse gives 1/a: a^254.
func inverse(a byte) byte {
	p := byte(1)
	for range 254 {
		p = mul(p, a)
	}
	return p
}

// table gives the products of c with every byte.
func table(c byte) (t [256]byte) {
	for i := range t {
		t[i] = mul(c, byte(i))
	}
	return t
}

// P writes the xor of the columns to dst.
func P(dst []byte, data ...[]byte) {
	clear(dst)
	for _, d := range data {
		subtle.XORBytes(dst, dst, d)
	}
}

// Q writes the second parity of the columns to dst.
func Q(dst []byte, data ...[]byte) {
	clear(dst)
	for j := len(data) - 1; j >= 0; j-- {
		double(dst)
		subtle.XORBytes(dst, dst, data[j])
	}
}

// double multiplies each byte by 2, eight at a time: shift all of them, then take
// the polynomial from those whose highest bit fell out.
func double(p []byte) {
	for ; len(p) >= 8; p = p[8:] {
		v := binary.LittleEndian.Uint64(p)
		out := v >> 7 & 0x0101010101010101
		binary.LittleEndian.PutUint64(p, v<<1&0xfefefefefefefefe^out*0x1d)
	}
	for i, b := range p {
		p[i] = mul(b, 2)
	}
}

// Recover gives all data columns. Columns that are nil are lost and rebuilt, from
// p where it is there (not nil), and from q. What is there is taken as right.
func Recover(data [][]byte, p, q []byte) ([][]byte, error) {
	n, err := length(data, p, q)
	if err != nil {
		return nil, err
	}
	out := append([][]byte{}, data...)
	var lost []int
	for j, d := range data {
		if d == nil {
			lost = append(lost, j)
			out[j] = make([]byte, n)
		}
	}
	switch {
	case len(lost) == 0:
	case len(lost) == 1 && p != nil:
		x := lost[0]
		copy(out[x], p)
		for j, d := range data {
			if j != x {
				subtle.XORBytes(out[x], out[x], d)
			}
		}
	case len(lost) == 1 && q != nil:
		x := lost[0]
		part := make([]byte, n)
		Q(part, out...)
		t := table(inverse(pow(x)))
		for i := range part {
			out[x][i] = t[part[i]^q[i]]
		}
	case len(lost) == 2 && p != nil && q != nil:
		two(out, lost[0], lost[1], p, q)
	default:
		return nil, fmt.Errorf("%d lost: %w", len(lost), ErrTooManyLost)
	}
	return out, nil
}

// two rebuilds columns x < y, which are zero in data, from both parities:
// Dx + Dy = P' and g^x·Dx + g^y·Dy = Q', P' and Q' being p and q less what the
// other columns give.
func two(data [][]byte, x, y int, p, q []byte) {
	n := len(p)
	pp, qq := make([]byte, n), make([]byte, n)
	P(pp, data...)
	Q(qq, data...)
	gx, gy := pow(x), pow(y)
	ty, td := table(gy), table(inverse(gx^gy))
	for i := range n {
		a, b := pp[i]^p[i], qq[i]^q[i]
		dx := td[b^ty[a]]
		data[x][i], data[y][i] = dx, a^dx
	}
}

func length(data [][]byte, p, q []byte) (int, error) {
	n := -1
	for _, d := range append(append([][]byte{}, data...), p, q) {
		if d == nil {
			continue
		}
		if n >= 0 && len(d) != n {
			return 0, fmt.Errorf("columns of %d and %d bytes", n, len(d))
		}
		n = len(d)
	}
	if n < 0 {
		return 0, ErrTooManyLost
	}
	return n, nil
}
