package fragmentation

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"testing"

	brocaar "github.com/brocaar/lorawan/applayer/fragmentation"
)

// trials returns how much work a statistical test does: short, unless SOWER_PROOF=1.
func trials(short, proof int) int {
	if os.Getenv("SOWER_PROOF") == "1" {
		return proof
	}
	return short
}

var matrices = []Matrix{V1, V2, V2Absolute}

func TestMatrixNames(t *testing.T) {
	for _, m := range matrices {
		got, err := ParseMatrix(m.String())
		if err != nil || got != m {
			t.Errorf("ParseMatrix(%q) = %v, %v", m.String(), got, err)
		}
		text, err := m.MarshalText()
		if err != nil {
			t.Fatal(err)
		}
		if err := got.UnmarshalText(text); err != nil || got != m {
			t.Errorf("%s unmarshals to %v, %v", text, got, err)
		}
	}
	for _, name := range []string{"", "V1", "v3", "v2 ", "Matrix(0)"} {
		if got, err := ParseMatrix(name); !errors.Is(err, ErrLimit) || got != 0 {
			t.Errorf("ParseMatrix(%q) = %v, %v; want ErrLimit", name, got, err)
		}
	}
	for _, m := range []Matrix{0, 4} {
		if _, err := m.MarshalText(); !errors.Is(err, ErrLimit) || m.Valid() {
			t.Errorf("%v marshals with %v and is valid: %v", m, err, m.Valid())
		}
	}
}

func TestRowRefuses(t *testing.T) {
	tests := []struct {
		m      int
		matrix Matrix
		n      int
		want   error
	}{
		{0, V1, 1, ErrLimit},
		{-1, V1, 1, ErrLimit},
		{16384, V1, 1, ErrLimit},
		{10, 0, 1, ErrLimit},
		{10, 4, 1, ErrLimit},
		{10, V1, 0, ErrIndex},
		{10, V1, -5, ErrIndex},
		{10, V1, 16384, ErrIndex},
	}
	for _, tt := range tests {
		if row, err := Row(tt.m, tt.matrix, tt.n); !errors.Is(err, tt.want) || row != nil {
			t.Errorf("Row(%d, %v, %d) = %v, %v; want %v", tt.m, tt.matrix, tt.n, row, err, tt.want)
		}
	}
}

// slowRow is the text of the standard, one step at a time.
func slowRow(m int, matrix Matrix, n int) []bool {
	row := make([]bool, m)
	if n <= m {
		row[n-1] = true
		return row
	}
	seed := n - m
	if matrix == V2Absolute {
		seed = n
	}
	modulus := m
	if m&(m-1) == 0 {
		modulus++
	}
	x := 1 + 1001*seed
	for count := 0; count < m/2; {
		r := 1 << 16
		for r >= m {
			x = x>>1 + ((x&1)^(x>>5&1))<<22
			r = x % modulus
		}
		if matrix == V1 || !row[r] {
			count++
		}
		row[r] = true
	}
	return row
}

// Every M in steps, every kind of number, against the text of the standard. The numbers
// beyond 8379 seed the generator with more than its 23 bits.
func TestRowEqualsTheText(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	check := func(m int, matrix Matrix, n int) {
		got, err := Row(m, matrix, n)
		if err != nil {
			t.Fatal(err)
		}
		for c, want := range slowRow(m, matrix, n) {
			if got.Has(c) != want {
				t.Fatalf("M=%d %v fragment %d column %d: %v, want %v", m, matrix, n, c, got.Has(c), want)
			}
		}
		if got.Has(m) || got.Has(-1) || got.Has(1<<20) {
			t.Fatalf("M=%d %v fragment %d has a column outside 0..M-1", m, matrix, n)
		}
	}
	for m := 1; m <= MaxIndex; m += 1 + m/trials(20, 400) {
		for _, matrix := range matrices {
			for _, n := range []int{1, m, min(m+1, MaxIndex), MaxIndex, max(m, MaxIndex-1), 1 + rng.IntN(MaxIndex), 1 + rng.IntN(MaxIndex)} {
				check(m, matrix, n)
			}
		}
	}
	for _, m := range []int{1, 2, 4, 8, 64, 128, 1024, 8192} { // powers of two use modulus M+1
		for _, matrix := range matrices {
			for range 20 {
				check(m, matrix, 1+rng.IntN(MaxIndex))
			}
		}
	}
}

// No seed leads to the all-zero state, in which the generator would stay for ever.
func TestNoSeedDies(t *testing.T) {
	for n := range MaxIndex + 1 {
		x := uint64(1 + 1001*n)
		for range 40 {
			x = prbs23(x)
			if x == 0 {
				t.Fatalf("the seed of row %d dies", n)
			}
		}
		if x >= 1<<23 {
			t.Fatalf("the seed of row %d does not return into 23 bits", n)
		}
	}
}

func TestRowWeights(t *testing.T) {
	for _, m := range []int{1, 2, 3, 33, 64, 300, 1000} {
		sum := 0
		for n := m + 1; n <= m+200; n++ {
			for _, matrix := range []Matrix{V2, V2Absolute} {
				row, err := Row(m, matrix, n)
				if err != nil || row.Count() != m/2 {
					t.Fatalf("M=%d %v fragment %d has %d ones (%v), want exactly %d", m, matrix, n, row.Count(), err, m/2)
				}
			}
			row, err := Row(m, V1, n)
			if err != nil {
				t.Fatal(err)
			}
			sum += row.Count()
		}
		if share := float64(sum) / 200 / float64(m); m >= 300 && (share < 0.385 || share > 0.402) {
			t.Errorf("M=%d: V1 rows hold %.3f M ones on average, want 0.393", m, share)
		}
	}
}

// TestParityEqualsBrocaar compares our parity with brocaar/lorawan Encode, an implementation
// that shares no line with this one, on 100,000 and more pairs (M, N) in each run.
func TestParityEqualsBrocaar(t *testing.T) {
	rng := rand.New(rand.NewPCG(2, 2))
	pairs := 0
	for want := trials(100_000, 2_000_000); pairs < want; {
		m := 1 + rng.IntN(3000)
		parity := 1 + rng.IntN(200)
		if rng.IntN(50) == 0 { // up to the last number
			m = 1 + rng.IntN(60)
			parity = MaxIndex - m
		}
		size := 1 + rng.IntN(9)
		block := make([]byte, m*size)
		for i := range block {
			block[i] = byte(rng.Uint32())
		}
		e, err := NewEncoder(block, size, V1)
		if err != nil {
			t.Fatal(err)
		}
		theirs, err := brocaar.Encode(block, size, parity)
		if err != nil {
			t.Fatal(err)
		}
		var ours []byte
		for i := m; i < len(theirs); i++ {
			if ours, err = e.Fragment(ours[:0], i+1); err != nil || !bytes.Equal(ours, theirs[i]) {
				t.Fatalf("M=%d size %d fragment %d: %x (%v), brocaar has %x", m, size, i+1, ours, err, theirs[i])
			}
			pairs++
		}
	}
	t.Logf("%d pairs (M, N) equal", pairs)
}

func ExampleRow() {
	row, err := Row(10, V1, 11)
	if err != nil {
		panic(err)
	}
	for column := range 10 {
		if row.Has(column) {
			fmt.Println("fragment", column+1)
		}
	}
	// Output:
	// fragment 3
	// fragment 6
}
