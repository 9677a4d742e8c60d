package delta

import (
	"bufio"
	"encoding/binary"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// cDecoder is the device's decoder, compiled with sanitizers and running as a child.
type cDecoder struct {
	t   testing.TB
	in  *bufio.Writer
	out *bufio.Reader
}

func startC(t testing.TB) *cDecoder {
	t.Helper()
	stub := filepath.Join("..", "firmware-stub")
	bin := filepath.Join(t.TempDir(), "patch_jobs")
	args := []string{"-std=c99", "-O1", "-g", "-Wall", "-Wextra", "-Wconversion", "-Werror",
		"-fsanitize=address,undefined", "-fno-sanitize-recover=all",
		"-I", filepath.Join(stub, "src"), "-o", bin,
		filepath.Join(stub, "test", "patch", "patch_jobs.c")}
	src, err := filepath.Glob(filepath.Join(stub, "src", "sow_patch*.c"))
	if err != nil || len(src) == 0 {
		t.Fatalf("no decoder source: %v", err)
	}
	if out, err := exec.Command("gcc", append(args, src...)...).CombinedOutput(); err != nil {
		t.Fatalf("gcc: %v\n%s", err, out)
	}
	cmd := exec.Command(bin)
	cmd.Stderr = os.Stderr
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
	t.Cleanup(func() {
		in.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("C decoder: %v", err)
		}
	})
	return &cDecoder{t, bufio.NewWriterSize(in, 1<<16), bufio.NewReaderSize(out, 1<<16)}
}

// decode returns the C decoder's code and what it produced, pulled chunk bytes at a time.
func (c *cDecoder) decode(p Params, old, stream []byte, chunk uint32) (int32, []byte) {
	c.t.Helper()
	for _, v := range []uint32{uint32(p.Profile), uint32(p.Options), p.BaseSize, p.NewSize, p.LinkBase,
		p.ScratchBytes, uint32(len(stream)), chunk} {
		binary.Write(c.in, binary.LittleEndian, v)
	}
	c.in.Write(old)
	c.in.Write(stream)
	if err := c.in.Flush(); err != nil {
		c.t.Fatalf("C decoder died: %v", err)
	}
	var head [12]byte
	if _, err := io.ReadFull(c.out, head[:]); err != nil {
		c.t.Fatalf("C decoder died: %v", err)
	}
	code := int32(binary.LittleEndian.Uint32(head[:]))
	out := make([]byte, binary.LittleEndian.Uint32(head[4:]))
	if _, err := io.ReadFull(c.out, out); err != nil {
		c.t.Fatalf("C decoder died: %v", err)
	}
	if n := binary.LittleEndian.Uint32(head[8:]); n != 0 {
		c.t.Fatalf("C decoder broke the rules of its callbacks %d times", n)
	}
	return code, out
}
