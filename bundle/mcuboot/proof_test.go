//go:build proof

package mcuboot_test

import (
	"bytes"
	"cmp"
	"crypto/x509"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/sower-fuota/sower/bundle/mcuboot"
)

// imgtool accepts what Wrap makes. SOWER_IMGTOOL names the program; without it, it is looked up as imgtool
// (`pip install imgtool`).
func TestImgtoolVerifies(t *testing.T) {
	tool, err := exec.LookPath(cmp.Or(os.Getenv("SOWER_IMGTOOL"), "imgtool"))
	if err != nil {
		t.Fatalf("%v: install it with `pip install imgtool`, or name it in SOWER_IMGTOOL", err)
	}
	key := newKey(t)
	der, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	pub := filepath.Join(dir, "key.pub")
	if err := os.WriteFile(pub, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	verify := func(img []byte) ([]byte, error) {
		path := filepath.Join(dir, "image")
		if err := os.WriteFile(path, img, 0o600); err != nil {
			t.Fatal(err)
		}
		return exec.Command(tool, "verify", "-k", pub, path).CombinedOutput()
	}
	for _, header := range []int{32, 0x100, 0x200, 0x400} {
		for _, n := range []int{1, 701, 70000} {
			body := bytes.Repeat([]byte{0xa5, 1, 2}, n)[:n]
			img, err := mcuboot.Wrap(body, mcuboot.Options{Major: 255, Minor: 7, Revision: 65535, Build: 9, HeaderSize: header, Signer: key})
			if err != nil {
				t.Fatal(err)
			}
			if out, err := verify(img); err != nil || !bytes.Contains(out, []byte("correctly validated")) {
				t.Errorf("header %d, body %d: %v\n%s", header, n, err, out)
			}
			img[header] ^= 1
			if out, err := verify(img); err == nil && bytes.Contains(out, []byte("correctly validated")) {
				t.Errorf("header %d, body %d: a changed image is accepted", header, n)
			}
		}
	}
}
