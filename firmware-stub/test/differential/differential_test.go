// Package differential compares the device library, compiled for the host, with package fragmentation: the same
// fragments complete the same block at the same instant.
package differential

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/sower-fuota/sower/fragmentation"
)

// build compiles the driver.
func build(t *testing.T) string {
	t.Helper()
	const stub = "../.."
	program := filepath.Join(t.TempDir(), "driver")
	args := []string{"-std=c11", "-O2", "-Wall", "-Wextra", "-Wconversion", "-Werror",
		"-I" + stub + "/include", "-I" + stub + "/src", "-I" + stub + "/boot", "-I" + stub + "/ports/posix", "-I" + stub + "/test/core",
		"driver/driver.c", stub + "/test/core/kit.c", stub + "/ports/posix/sow_flash_emu.c"}
	for _, name := range []string{"parity", "store", "fec", "core", "judge", "write", "aes", "cipher", "flash", "log", "image", "manifest", "sha256", "p256"} {
		args = append(args, stub+"/src/sow_"+name+".c")
	}
	for _, pattern := range []string{stub + "/boot/*.c", stub + "/src/sow_patch*.c"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		args = append(args, files...)
	}
	if _, err := filepath.Glob(stub + "/*/*.h"); err != nil { // a cached result depends on them, too
		t.Fatal(err)
	}
	if out, err := exec.Command("cc", append(args, "-o", program)...).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return program
}

// session is one block and the fragments that arrive, in their order.
type session struct {
	matrix  fragmentation.Matrix
	m, size int
	padding int
	block   []byte
	numbers []int
	resets  []bool // of the device, before that fragment
}

// random makes a session of any of the orders in which fragments arrive.
func random(rnd *rand.Rand) (s session, kind string) {
	s.matrix = fragmentation.Matrix(1 + rnd.IntN(3))
	s.m = 1 + rnd.IntN(40)
	if rnd.IntN(8) == 0 {
		s.m = 1 + rnd.IntN(300)
	}
	s.size = 1 + rnd.IntN(60)
	s.padding = rnd.IntN(s.size)
	s.block = make([]byte, s.m*s.size-s.padding)
	for i := range s.block {
		s.block[i] = byte(rnd.Uint32())
	}
	parity := s.m + 12 + rnd.IntN(10)
	loss := rnd.Float64() * 0.6
	kinds := []string{"in order", "any order", "parity only", "parity first", "duplicates"}
	kind = kinds[rnd.IntN(len(kinds))]
	for n := 1; n <= s.m+parity; n++ {
		if (kind == "parity only" && n <= s.m) || (kind != "parity only" && rnd.Float64() < loss) {
			continue
		}
		s.numbers = append(s.numbers, n)
		for kind == "duplicates" && rnd.IntN(3) == 0 {
			s.numbers = append(s.numbers, 1+rnd.IntN(n))
		}
	}
	switch kind {
	case "any order", "parity only":
		rnd.Shuffle(len(s.numbers), func(i, j int) { s.numbers[i], s.numbers[j] = s.numbers[j], s.numbers[i] })
	case "parity first": // some of it
		cut := rnd.IntN(len(s.numbers) + 1)
		s.numbers = append(append([]int(nil), s.numbers[cut:]...), s.numbers[:cut]...)
	}
	s.resets = make([]bool, len(s.numbers))
	for i := range s.resets {
		s.resets[i] = rnd.IntN(25) == 0
	}
	return s, kind
}

// fragments encodes the session and says what package fragmentation makes of it.
func (s session) fragments(t *testing.T) (data [][]byte, done int, block []byte) {
	t.Helper()
	enc, err := fragmentation.NewEncoder(s.block, s.size, s.matrix)
	if err != nil {
		t.Fatal(err)
	}
	dec, err := fragmentation.NewDecoder(s.m, s.size, s.matrix)
	if err != nil {
		t.Fatal(err)
	}
	done = len(s.numbers)
	for i, n := range s.numbers {
		f, err := enc.Fragment(nil, n)
		if err != nil {
			t.Fatal(err)
		}
		data = append(data, f)
		ok, err := dec.Add(n, f)
		if err != nil {
			t.Fatal(err)
		}
		if ok && done == len(s.numbers) {
			done = i
			if block, err = dec.Block(s.padding); err != nil {
				t.Fatal(err)
			}
		}
	}
	return data, done, block
}

// TestSameInstantSameBytes feeds random sessions to both.
func TestSameInstantSameBytes(t *testing.T) {
	sessions := 500
	if os.Getenv("SOWER_PROOF") != "" {
		sessions = 20000
	}
	cmd := exec.Command(build(t))
	var complaints bytes.Buffer
	cmd.Stderr = &complaints
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w, r := bufio.NewWriter(in), bufio.NewReader(out)
	rnd := rand.New(rand.NewPCG(20260101, 1))
	kinds, complete, resets := map[string]int{}, 0, 0
	for i := range sessions {
		s, kind := random(rnd)
		kinds[kind]++
		data, want, block := s.fragments(t)
		head := binary.LittleEndian.AppendUint16([]byte{byte(s.matrix)}, uint16(s.m))
		w.Write(binary.LittleEndian.AppendUint32(append(head, byte(s.size), byte(s.padding)), uint32(len(s.numbers))))
		for j, n := range s.numbers {
			reset := byte(0)
			if s.resets[j] {
				reset = 1
				resets++
			}
			w.Write(append(binary.LittleEndian.AppendUint16(nil, uint16(n)), reset))
			w.Write(data[j])
		}
		if err := w.Flush(); err != nil {
			t.Fatalf("session %d: %v: %s", i, err, &complaints)
		}
		var word [4]byte
		if _, err := io.ReadFull(r, word[:]); err != nil {
			t.Fatalf("session %d (%s, m %d, size %d): %v: %s", i, kind, s.m, s.size, err, &complaints)
		}
		if got := int(binary.LittleEndian.Uint32(word[:])); got != want {
			t.Fatalf("session %d (%s, matrix %v, m %d, size %d): the device completes at fragment %d of %d, package fragmentation at %d",
				i, kind, s.matrix, s.m, s.size, got, len(s.numbers), want)
		}
		if want == len(s.numbers) {
			continue
		}
		complete++
		got := make([]byte, len(s.block))
		if _, err := io.ReadFull(r, got); err != nil {
			t.Fatalf("session %d: %v: %s", i, err, &complaints)
		}
		if !bytes.Equal(got, s.block) || !bytes.Equal(block, s.block) {
			t.Fatalf("session %d (%s, matrix %v, m %d, size %d): the bytes differ", i, kind, s.matrix, s.m, s.size)
		}
	}
	in.Close()
	if err := cmd.Wait(); err != nil {
		t.Fatalf("%v: %s", err, &complaints)
	}
	if complete < sessions/2 || complete == sessions {
		t.Errorf("%d of %d sessions complete: the test compares too few of one kind", complete, sessions)
	}
	t.Logf("%d sessions %v, %d complete, %d resets: same instant, same bytes", sessions, kinds, complete, resets)
}
