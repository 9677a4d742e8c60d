package fragmentation

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"testing"
	"time"
)

func mustDecoder(t testing.TB, m, size int, matrix Matrix) *Decoder {
	t.Helper()
	d, err := NewDecoder(m, size, matrix)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func mustAdd(t testing.TB, d *Decoder, n int, data []byte) bool {
	t.Helper()
	done, err := d.Add(n, data)
	if err != nil {
		t.Fatalf("fragment %d: %v", n, err)
	}
	return done
}

func TestDecoderRefusesSessions(t *testing.T) {
	tests := []struct {
		m, size int
		matrix  Matrix
	}{{0, 10, V1}, {-1, 10, V1}, {16384, 10, V1}, {10, 0, V1}, {10, 256, V1}, {10, 10, 0}, {10, 10, 4}}
	for _, tt := range tests {
		if d, err := NewDecoder(tt.m, tt.size, tt.matrix); !errors.Is(err, ErrLimit) || d != nil {
			t.Errorf("NewDecoder(%d, %d, %v) = %v, %v; want ErrLimit", tt.m, tt.size, tt.matrix, d, err)
		}
	}
}

// Fragments in any order, some lost, some twice, restore the block exactly when their rows
// have full rank, as plain elimination tells.
func TestDecoderAnyOrder(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 5))
	for trial := range trials(400, 20000) {
		m, size := 1+rng.IntN(90), 1+rng.IntN(20)
		matrix := matrices[rng.IntN(3)]
		block := make([]byte, m*size-rng.IntN(size))
		for i := range block {
			block[i] = byte(rng.Uint32())
		}
		e := mustEncoder(t, block, size, matrix)
		var order []int
		for n := 1; n <= m; n++ {
			if rng.IntN(3) > 0 {
				order = append(order, n)
			}
		}
		for range rng.IntN(m + 20) {
			order = append(order, m+1+rng.IntN(MaxIndex-m))
		}
		order = append(order, order[:rng.IntN(len(order)+1)]...) // repetitions
		switch trial % 3 {
		case 0:
			rng.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
		case 1: // parity first
			for i, j := 0, len(order)-1; i < j; i, j = i+1, j-1 {
				order[i], order[j] = order[j], order[i]
			}
		}
		d := mustDecoder(t, m, size, matrix)
		var basis []Bitset
		for _, n := range order {
			row, err := Row(m, matrix, n)
			if err != nil {
				t.Fatal(err)
			}
			basis = insert(basis, row)
			done := mustAdd(t, d, n, mustFragment(t, e, n))
			if d.Missing() != m-len(basis) || done != (len(basis) == m) || d.Done() != done {
				t.Fatalf("trial %d fragment %d: %d missing, done %v; the rank is %d of %d", trial, n, d.Missing(), done, len(basis), m)
			}
		}
		got, err := d.Block(e.Padding())
		if len(basis) < m {
			if !errors.Is(err, ErrNeedMore) || got != nil {
				t.Fatalf("incomplete block: %x, %v; want ErrNeedMore", got, err)
			}
		} else if err != nil || !bytes.Equal(got, block) {
			t.Fatalf("trial %d: M=%d size %d %v: restored block differs (%v)", trial, m, size, matrix, err)
		}
	}
}

// insert adds a row to a basis over GF(2) in the plainest way there is.
func insert(basis []Bitset, row Bitset) []Bitset {
	for _, b := range basis {
		for w := len(b) - 1; w >= 0; w-- {
			if b[w] == 0 {
				continue
			}
			top := w<<6 + 63
			for !b.Has(top) {
				top--
			}
			if row.Has(top) {
				for k := range row {
					row[k] ^= b[k]
				}
			}
			break
		}
	}
	if row.Count() == 0 {
		return basis
	}
	return append(basis, row)
}

// After each refusal the decoder is as it was: same rank, and it completes with the right
// block as if nothing had happened.
func TestDecoderRefusesFragments(t *testing.T) {
	const m, size = 20, 8
	block := randomBlock(m * size)
	e := mustEncoder(t, block, size, V1)
	other := mustEncoder(t, randomBlock(m*size + 1)[1:], size, V1)
	wrong := mustEncoder(t, block, size, V2)
	d := mustDecoder(t, m, size, V1)
	refuse := func(n int, data []byte, want error) {
		t.Helper()
		before := d.Missing()
		if done, err := d.Add(n, data); !errors.Is(err, want) || d.Missing() != before || done != (before == 0) {
			t.Fatalf("Add(%d, %d bytes) = %v, %v with rank %d -> %d missing; want %v and no change",
				n, len(data), done, err, before, d.Missing(), want)
		}
	}
	bad := func() {
		refuse(0, make([]byte, size), ErrIndex)
		refuse(-3, make([]byte, size), ErrIndex)
		refuse(MaxIndex+1, make([]byte, size), ErrIndex)
		refuse(3, make([]byte, size-1), ErrSize)
		refuse(3, make([]byte, size+1), ErrSize)
		refuse(3, nil, ErrSize)
	}
	bad()
	for n := 3; n <= 12; n++ {
		mustAdd(t, d, n, mustFragment(t, e, n))
	}
	bad()
	refuse(3, mustFragment(t, other, 3), ErrConflict) // uncoded, repeated with other data
	mustAdd(t, d, m+4, mustFragment(t, e, m+4))
	refuse(m+4, mustFragment(t, other, m+4), ErrConflict) // parity, repeated with other data
	missing := d.Missing()
	if mustAdd(t, d, 3, mustFragment(t, e, 3)); d.Missing() != missing { // repeated alike
		t.Fatalf("a repetition changed the rank")
	}
	// A fragment that stands in for an uncoded one stays contradictable after that arrives.
	for n := 1; n <= 2; n++ {
		mustAdd(t, d, n, mustFragment(t, e, n))
	}
	refuse(m+4, mustFragment(t, other, m+4), ErrConflict)
	for n := m + 1; !d.Done(); n++ {
		mustAdd(t, d, n, mustFragment(t, e, n))
		bad()
	}
	refuse(15, mustFragment(t, other, 15), ErrConflict) // complete: everything can be checked
	refuse(m+9, mustFragment(t, wrong, m+9), ErrConflict)
	bad()
	mustAdd(t, d, m+9, mustFragment(t, e, m+9))
	if got, err := d.Block(0); err != nil || !bytes.Equal(got, block) {
		t.Fatalf("the block differs (%v)", err)
	}
	for _, padding := range []int{-1, size, size + 1} {
		if _, err := d.Block(padding); !errors.Is(err, ErrLimit) {
			t.Errorf("Block(%d): %v, want ErrLimit", padding, err)
		}
	}
}

// V1 and V2 cross silently, except where a surplus fragment betrays it: that is ErrConflict.
func TestDecoderBetraysTheWrongMatrix(t *testing.T) {
	const m, size = 100, 16
	e := mustEncoder(t, randomBlock(m*size), size, V2)
	d := mustDecoder(t, m, size, V1)
	for n := 1; n <= m; n++ {
		if n%10 != 0 {
			mustAdd(t, d, n, mustFragment(t, e, n))
		}
	}
	for n := m + 1; n <= m+30; n++ {
		if _, err := d.Add(n, mustFragment(t, e, n)); errors.Is(err, ErrConflict) {
			return
		} else if err != nil {
			t.Fatal(err)
		}
	}
	t.Error("30 fragments of another matrix for 10 losses raised no conflict")
}

// Parity alone: V1 can, V2 cannot where floor(M/2) is even, until one uncoded fragment comes.
func TestDecoderParityOnly(t *testing.T) {
	for _, matrix := range matrices {
		for m := 8; m <= 103; m += 5 {
			block := randomBlock(m * 3)
			e := mustEncoder(t, block, 3, matrix)
			d := mustDecoder(t, m, 3, matrix)
			for n := m + 1; n <= 4*m+200 && !d.Done(); n++ {
				mustAdd(t, d, n, mustFragment(t, e, n))
			}
			even := matrix != V1 && m/2%2 == 0
			if even && d.Missing() != 1 || !even && !d.Done() {
				t.Fatalf("M=%d %v: %d missing after all parity", m, matrix, d.Missing())
			}
			mustAdd(t, d, m, mustFragment(t, e, m))
			if got, err := d.Block(0); err != nil || !bytes.Equal(got, block) {
				t.Fatalf("M=%d %v: the block differs (%v)", m, matrix, err)
			}
		}
	}
}

// The promise of the Decoder's documentation, at M = 2000 and the worst order: all parity.
func TestDecoderMemory(t *testing.T) {
	const m, size = 2000, 8
	e := mustEncoder(t, randomBlock(m*size), size, V1)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	d := mustDecoder(t, m, size, V1)
	for n := m + 1; n <= 2*m; n++ { // 2000 parity fragments, of which nearly all raise the rank; rows take 256 bytes
		mustAdd(t, d, n, mustFragment(t, e, n))
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if got, most := int(after.HeapAlloc)-int(before.HeapAlloc), m*(size+25)+m*256+16384; got > most {
		t.Errorf("%d bytes held, want at most %d", got, most)
	}
	runtime.KeepAlive(d)
}

// FuzzDecoder drives a decoder with fragments of a real block in an order made of the input,
// some of them damaged, beside the rank-only oracle.
func FuzzDecoder(f *testing.F) {
	f.Add([]byte{5, 3, 1, 1, 0, 1, 0, 2, 0, 3, 0, 4, 0, 5})
	f.Add([]byte{20, 1, 2, 21, 0, 22, 0, 23, 0, 24, 0, 25, 0, 1, 0})
	f.Add([]byte{8, 8, 3, 1, 0, 1, 0x80, 0xff, 0x3f, 0, 0})
	f.Fuzz(func(t *testing.T, in []byte) {
		if len(in) < 3 {
			return
		}
		m, size, matrix := 1+int(in[0])%80, 1+int(in[1])%32, matrices[int(in[2])%3]
		block := randomBlock(m * size)
		e := mustEncoder(t, block, size, matrix)
		d := mustDecoder(t, m, size, matrix)
		var basis []Bitset
		honest := true
		for in = in[3:min(len(in), 400)]; len(in) >= 2; in = in[2:] {
			n := int(in[0]) | int(in[1]&0x7f)<<8
			before := d.Missing()
			data := make([]byte, size)
			if n >= 1 && n <= MaxIndex {
				data = mustFragment(t, e, n)
			}
			damaged := in[1]&0x80 != 0
			if damaged {
				data[n%size] ^= 0x55
			}
			done, err := d.Add(n, data)
			switch {
			case n < 1 || n > MaxIndex:
				if !errors.Is(err, ErrIndex) {
					t.Fatalf("Add(%d): %v, want ErrIndex", n, err)
				}
			case err != nil:
				if !errors.Is(err, ErrConflict) || honest && !damaged {
					t.Fatalf("Add(%d): %v", n, err)
				}
			default:
				row, err := Row(m, matrix, n)
				if err != nil {
					t.Fatal(err)
				}
				basis = insert(basis, row)
				if damaged && honest && d.Missing() == before {
					t.Fatalf("damaged fragment %d passed as known", n)
				}
				honest = honest && !damaged
			}
			if err != nil && d.Missing() != before || done != d.Done() {
				t.Fatalf("Add(%d) = %v, %v changed the rank", n, done, err)
			}
			if d.Missing() != m-len(basis) {
				t.Fatalf("%d missing after fragment %d, the rank is %d of %d", d.Missing(), n, len(basis), m)
			}
		}
		got, err := d.Block(0)
		if d.Done() != (err == nil) || honest && d.Done() && !bytes.Equal(got, block) {
			t.Fatalf("Block: %v, equal %v", err, bytes.Equal(got, block))
		}
	})
}

// BenchmarkDecode is a whole session: M = 1000, S = 232, 300 uncoded fragments lost.
func BenchmarkDecode(b *testing.B) {
	const m, size, lost = 1000, 232, 300
	block := randomBlock(m * size)
	e := mustEncoder(b, block, size, V1)
	gone := NewBitset(m)
	for _, j := range rand.New(rand.NewPCG(6, 6)).Perm(m)[:lost] {
		gone.Set(j)
	}
	var air [][]byte
	for n := 1; n <= m+lost+30; n++ {
		air = append(air, mustFragment(b, e, n))
	}
	best := time.Hour
	b.SetBytes(m * size)
	b.ReportAllocs()
	for b.Loop() {
		t0 := time.Now()
		d := mustDecoder(b, m, size, V1)
		for i, data := range air {
			if i < m && gone.Has(i) {
				continue
			}
			if done, err := d.Add(i+1, data); err != nil {
				b.Fatal(err)
			} else if done {
				break
			}
		}
		got, err := d.Block(0)
		best = min(best, time.Since(t0))
		if err != nil || !bytes.Equal(got, block) {
			b.Fatal("the block differs", err)
		}
	}
	b.ReportMetric(float64(best.Microseconds())/1e3, "best-ms")
}

func ExampleDecoder_Add() {
	d, err := NewDecoder(3, 2, V1)
	if err != nil {
		panic(err)
	}
	show := func(n int, data string) {
		done, err := d.Add(n, []byte(data))
		fmt.Println(n, done, d.Missing(), err)
	}
	show(1, "ab")
	show(1, "ab")
	show(1, "xy")
	show(0, "cd")
	show(3, "cde")
	show(3, "ef")
	// Output:
	// 1 false 2 <nil>
	// 1 false 2 <nil>
	// 1 false 2 fragmentation: fragment contradicts those received before: fragment 1
	// 0 false 2 fragmentation: no such fragment number: 0, fragments count from 1
	// 3 false 2 fragmentation: wrong fragment length: fragment 3 has 3 bytes, want 2
	// 3 false 1 <nil>
}
