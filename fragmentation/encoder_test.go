package fragmentation

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
)

func mustEncoder(t testing.TB, block []byte, size int, matrix Matrix) *Encoder {
	t.Helper()
	e, err := NewEncoder(block, size, matrix)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func mustFragment(t testing.TB, e *Encoder, n int) []byte {
	t.Helper()
	b, err := e.Fragment(nil, n)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestEncoderRefuses(t *testing.T) {
	tests := []struct {
		name   string
		block  int
		size   int
		matrix Matrix
		want   error
	}{
		{"empty block", 0, 10, V1, ErrLimit},
		{"size zero", 100, 0, V1, ErrLimit},
		{"size negative", 100, -1, V1, ErrLimit},
		{"size above a byte", 1000, 256, V1, ErrLimit},
		{"more than 16383 fragments", 16384, 1, V1, ErrLimit},
		{"no matrix", 100, 10, 0, ErrLimit},
		{"unknown matrix", 100, 10, 9, ErrLimit},
		{"largest session", 16383 * 255, 255, V2, nil},
		{"smallest session", 1, 1, V1, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			e, err := NewEncoder(make([]byte, tt.block), tt.size, tt.matrix)
			if !errors.Is(err, tt.want) || (e == nil) != (tt.want != nil) {
				t.Errorf("NewEncoder = %v, %v; want %v", e, err, tt.want)
			}
		})
	}
	e := mustEncoder(t, []byte("block"), 2, V1)
	for _, n := range []int{0, -1, 16384} {
		if got, err := e.Fragment([]byte("x"), n); !errors.Is(err, ErrIndex) || string(got) != "x" {
			t.Errorf("Fragment(%d) = %q, %v; want ErrIndex and dst as it was", n, got, err)
		}
	}
}

// A fragment is the XOR of the uncoded fragments in its row, whatever was asked for before,
// at every kind of size, and whether or not the last fragment is padded.
func TestFragmentIsTheXOROfItsRow(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 3))
	for _, size := range []int{1, 2, 7, 8, 9, 50, 63, 64, 65, 127, 128, 129, 192, 242, 248, 255} {
		for _, m := range []int{1, 2, 5, 64, 511, 512, 513, 1100} {
			matrix := matrices[rng.IntN(3)]
			padding := rng.IntN(size)
			block := make([]byte, m*size-padding)
			for i := range block {
				block[i] = byte(rng.Uint32())
			}
			kept := bytes.Clone(block)
			e := mustEncoder(t, block, size, matrix)
			if e.M() != m || e.Size() != size || e.Padding() != padding || e.Matrix() != matrix {
				t.Fatalf("M %d, size %d, padding %d, %v; want %d, %d, %d, %v", e.M(), e.Size(), e.Padding(), e.Matrix(), m, size, padding, matrix)
			}
			clear(block) // the encoder has a copy
			padded := append(kept, make([]byte, padding)...)
			for _, n := range []int{MaxIndex, 1, m, min(m+1, MaxIndex), 1 + rng.IntN(MaxIndex), 1 + rng.IntN(MaxIndex)} {
				want := make([]byte, size)
				row, err := Row(m, matrix, n)
				if err != nil {
					t.Fatal(err)
				}
				for j := range m {
					if row.Has(j) {
						for i := range want {
							want[i] ^= padded[j*size+i]
						}
					}
				}
				dst := []byte("prefix")
				got, err := e.Fragment(dst, n)
				if err != nil || string(got[:6]) != "prefix" || !bytes.Equal(got[6:], want) {
					t.Fatalf("M=%d size %d %v fragment %d: %x, %v; want %x", m, size, matrix, n, got[6:], err, want)
				}
			}
		}
	}
}

func TestFragmentDoesNotAllocate(t *testing.T) {
	for _, size := range []int{50, 242} {
		e := mustEncoder(t, randomBlock(1000*size), size, V2)
		buf := make([]byte, 0, size)
		n := 0
		if allocs := testing.AllocsPerRun(200, func() {
			n = n%MaxIndex + 97
			buf, _ = e.Fragment(buf[:0], n)
		}); allocs != 0 {
			t.Errorf("size %d: %v allocations per fragment, want none", size, allocs)
		}
	}
}

func Example() {
	block := []byte("Four score and seven years ago our fathers brought forth")

	// The server: 8 uncoded fragments of 7 bytes, then as much parity as it likes.
	e, err := NewEncoder(block, 7, V1)
	if err != nil {
		panic(err)
	}
	var air [][]byte
	for n := 1; n <= e.M()+8; n++ {
		fragment, err := e.Fragment(nil, n)
		if err != nil {
			panic(err)
		}
		air = append(air, fragment)
	}

	// A device: it knows M, the size and the matrix from the session set-up.
	d, err := NewDecoder(e.M(), 7, V1)
	if err != nil {
		panic(err)
	}
	for i, fragment := range air {
		n := i + 1
		if n == 2 || n == 5 || n == 10 {
			continue // lost
		}
		done, err := d.Add(n, fragment)
		if err != nil {
			panic(err)
		}
		if done {
			fmt.Println("complete with fragment", n)
			break
		}
	}
	restored, err := d.Block(e.Padding())
	fmt.Printf("%s, %v\n", restored, err)
	// Output:
	// complete with fragment 11
	// Four score and seven years ago our fathers brought forth, <nil>
}
