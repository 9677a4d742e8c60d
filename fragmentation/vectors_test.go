package fragmentation

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func readVectors(t *testing.T, name string, into any) {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(raw, into); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
}

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestVectorsPRBS23(t *testing.T) {
	var v struct {
		Seed1001 []uint64 `json:"seed_1001"`
		Seed1    []uint64 `json:"seed_1"`
	}
	readVectors(t, "prbs23.json", &v)
	for seed, want := range map[uint64][]uint64{1001: v.Seed1001, 1: v.Seed1} {
		x := seed
		for i, w := range want {
			if x = prbs23(x); x != w {
				t.Fatalf("seed %d step %d: %d, want %d", seed, i+1, x, w)
			}
		}
	}
}

func TestVectorsRows(t *testing.T) {
	var v struct {
		Rows []struct {
			M         int
			FragmentN int   `json:"fragment_N"`
			V1        []int `json:"v1_ones"`
			V2        []int `json:"v2_ones"`
			Absolute  []int `json:"v2_literal_absolute_seed_ones"`
		}
	}
	readVectors(t, "fec_rows.json", &v)
	if len(v.Rows) != 184 {
		t.Fatalf("%d rows, want 184", len(v.Rows))
	}
	for _, r := range v.Rows {
		for matrix, want := range map[Matrix][]int{V1: r.V1, V2: r.V2, V2Absolute: r.Absolute} {
			row, err := Row(r.M, matrix, r.FragmentN)
			if err != nil {
				t.Fatal(err)
			}
			var got []int
			for c := range r.M {
				if row.Has(c) {
					got = append(got, c)
				}
			}
			if fmt.Sprint(got) != fmt.Sprint(want) || row.Count() != len(want) {
				t.Errorf("M=%d %v fragment %d: %v, want %v", r.M, matrix, r.FragmentN, got, want)
			}
		}
	}
}

func TestVectorsFragments(t *testing.T) {
	var v struct {
		Cases []struct {
			Name       string
			Version    Matrix `json:"-"`
			TS004      int    `json:"ts004_version"`
			M          int
			FragSize   int      `json:"frag_size"`
			Redundancy int      `json:"redundancy"`
			SHA        string   `json:"sha256_all_fragments_concat"`
			SHAParity  string   `json:"sha256_parity_only"`
			First      string   `json:"first_parity_hex"`
			Last       string   `json:"last_parity_hex"`
			Fragments  []string `json:"fragments_hex"`
			Parity     []string `json:"parity_hex"`
			Parity3    []string `json:"parity_first_3_hex"`
		}
	}
	readVectors(t, "fec_fragments.json", &v)
	for _, c := range v.Cases {
		matrix := [...]Matrix{1: V1, 2: V2}[c.TS004]
		t.Run(fmt.Sprintf("%v/M=%d/S=%d/R=%d%.4s", matrix, c.M, c.FragSize, c.Redundancy, c.Name), func(t *testing.T) {
			block := make([]byte, c.M*c.FragSize)
			for i := range block {
				block[i] = byte((i*31 + 7) % 251)
				if c.Name != "" {
					block[i] = byte(i)
				}
			}
			e, err := NewEncoder(block, c.FragSize, matrix)
			if err != nil {
				t.Fatal(err)
			}
			var all []byte
			for n := 1; n <= c.M+c.Redundancy; n++ {
				if all, err = e.Fragment(all, n); err != nil {
					t.Fatal(err)
				}
			}
			if sum := sha256.Sum256(all); hex.EncodeToString(sum[:]) != c.SHA {
				t.Errorf("SHA-256 of all fragments differs")
			}
			parity := all[len(block):]
			if sum := sha256.Sum256(parity); c.SHAParity != "" && hex.EncodeToString(sum[:]) != c.SHAParity {
				t.Errorf("SHA-256 of the parity differs")
			}
			if want := unhex(t, c.First); !bytes.HasPrefix(parity, want) {
				t.Errorf("first parity differs")
			}
			if want := unhex(t, c.Last); !bytes.HasSuffix(parity, want) {
				t.Errorf("last parity differs")
			}
			if want := unhex(t, strings.Join(c.Fragments, "")); len(want) > 0 && !bytes.Equal(all, want) {
				t.Errorf("fragments differ")
			}
			if want := unhex(t, strings.Join(c.Parity, "")); len(want) > 0 && !bytes.Equal(parity, want) {
				t.Errorf("parity differs")
			}
			if want := unhex(t, strings.Join(c.Parity3, "")); !bytes.HasPrefix(parity, want) {
				t.Errorf("first three parity fragments differ")
			}
		})
	}
}

// The interop file is a foreign recording: 21 uncoded and 5 parity messages. With any two
// uncoded fragments withheld the parity restores the block or leaves it incomplete, and one
// fragment alone is restored exactly when some row covers it.
func TestVectorsInteropFile(t *testing.T) {
	var v struct {
		M        int
		FragSize int `json:"frag_size"`
		Padding  int
		SHA      string   `json:"block_sha256"`
		Messages []string `json:"data_fragment_messages_hex"`
	}
	readVectors(t, "interop_file.json", &v)
	receive := func(skip ...int) (*Decoder, bool) {
		d, err := NewDecoder(v.M, v.FragSize, V1)
		if err != nil {
			t.Fatal(err)
		}
		done := false
	message:
		for _, msg := range v.Messages {
			b := unhex(t, msg)
			n := int(b[1]) | int(b[2]&0x3f)<<8
			for _, s := range skip {
				if n == s {
					continue message
				}
			}
			if done, err = d.Add(n, b[3:]); err != nil {
				t.Fatalf("fragment %d: %v", n, err)
			}
		}
		return d, done
	}
	check := func(d *Decoder, skip ...int) {
		block, err := d.Block(v.Padding)
		if err != nil {
			t.Fatalf("without %v: %v", skip, err)
		}
		if sum := sha256.Sum256(block); hex.EncodeToString(sum[:]) != v.SHA {
			t.Fatalf("without %v: SHA-256 differs", skip)
		}
	}
	d, _ := receive()
	check(d)
	// The parity of the recording is our parity.
	block, _ := d.Block(0)
	e, err := NewEncoder(block, v.FragSize, V1)
	if err != nil {
		t.Fatal(err)
	}
	for n := 1; n <= len(v.Messages); n++ {
		got, err := e.Fragment(nil, n)
		if want := unhex(t, v.Messages[n-1])[3:]; err != nil || !bytes.Equal(got, want) {
			t.Errorf("fragment %d differs (%v)", n, err)
		}
	}
	for a := 1; a <= v.M; a++ {
		covered := false
		for n := v.M + 1; n <= len(v.Messages); n++ {
			row, err := Row(v.M, V1, n)
			covered = covered || err == nil && row.Has(a-1)
		}
		d, done := receive(a)
		if done != covered {
			t.Errorf("fragment %d lost: done %v, covered by the parity %v", a, done, covered)
		}
		if done {
			check(d, a)
		}
		for b := a + 1; b <= v.M; b++ {
			if d, done := receive(a, b); done {
				check(d, a, b)
			}
		}
	}
}

// The C decoders were driven with losses that the recording does not name, so what can be
// checked is that our decoder reaches each recorded outcome for some losses of that number,
// and that it never needs fewer parity fragments than were lost.
func TestVectorsDecodeTrials(t *testing.T) {
	var v struct {
		Decoders []struct {
			Decoder string
			Trials  []string
		}
	}
	readVectors(t, "decode_trials.json", &v)
	rng := rand.New(rand.NewPCG(4, 2))
	count := 0
	for _, dec := range v.Decoders {
		matrix := V1
		if strings.Contains(dec.Decoder, "v2 fragments") {
			matrix = V2
		}
		for _, trial := range dec.Trials {
			var m, size, red, lost, final, used, identical, nbLost int
			if _, err := fmt.Sscanf(trial, "M=%d fs=%d red=%d lost=%d -> final=%d parity_used=%d identical=%d FragNbLost=%d",
				&m, &size, &red, &lost, &final, &used, &identical, &nbLost); err != nil {
				t.Fatalf("%q: %v", trial, err)
			}
			count++
			found := false
			for try := 0; try < 3000 && !found; try++ {
				got, done := parityUsed(t, m, red, matrix, rng.Perm(m)[:lost])
				if done && got < lost {
					t.Fatalf("M=%d %v: %d losses repaired by %d parity fragments", m, matrix, lost, got)
				}
				found = done == (identical == 1) && got == used
			}
			if !found {
				t.Errorf("%s: %q cannot be reproduced", dec.Decoder, trial)
			}
		}
	}
	if count != 180 {
		t.Errorf("%d trials, want 180", count)
	}
}

// parityUsed feeds a decoder the parity in order after the uncoded fragments less those lost,
// with empty payloads of one byte, and returns after how many it completed.
func parityUsed(t *testing.T, m, red int, matrix Matrix, lost []int) (used int, done bool) {
	t.Helper()
	d, err := NewDecoder(m, 1, matrix)
	if err != nil {
		t.Fatal(err)
	}
	gone := NewBitset(m)
	for _, j := range lost {
		gone.Set(j)
	}
	for j := range m {
		if !gone.Has(j) {
			done, err = d.Add(j+1, []byte{0})
		}
	}
	for used = 0; used < red && !done; used++ {
		done, err = d.Add(m+used+1, []byte{0})
	}
	if err != nil {
		t.Fatal(err)
	}
	return used, done
}
