package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sower-fuota/sower/bundle"
	"github.com/sower-fuota/sower/bundle/mcuboot"
	"github.com/sower-fuota/sower/firmware-stub/device"
	"github.com/sower-fuota/sower/integrations/serial"
)

const benchRootKey = "000102030405060708090a0b0c0d0e0f"

// benchFiles are an image that a device runs, the key it trusts, and what is sent to it.
type benchFiles struct {
	image  []byte
	trust  [64]byte
	update string // a bundle
	other  string // one for another hardware
	noise  string // no bundle
}

func newBenchFiles(t *testing.T) *benchFiles {
	t.Helper()
	dir := t.TempDir()
	write := func(name string, data []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, data, 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	wrap := func(minor uint8) []byte {
		img, err := mcuboot.Wrap(bytes.Repeat([]byte("firmware of a small device "), 300+int(minor)), mcuboot.Options{Major: 1, Minor: minor})
		if err != nil {
			t.Fatal(err)
		}
		return img
	}
	key, err := bundle.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	f := &benchFiles{image: wrap(0), noise: write("noise.bin", []byte("not a bundle"))}
	if f.trust, err = bundle.PublicKey(&key.PublicKey); err != nil {
		t.Fatal(err)
	}
	full := func(hardware uint16) []byte {
		b, err := bundle.Full(bundle.Target{Class: 0x1001, Hardware: hardware, KeyID: 1, Sequence: 1}, wrap(1), key)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	f.update, f.other = write("u.sow", full(3)), write("other.sow", full(4))
	return f
}

// bench runs `sower bench` with a host device behind every port but "nowhere".
func bench(t *testing.T, f *benchFiles, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	open := func(path string, baud uint) (serial.Port, error) {
		if path == "nowhere" || baud != 115200 {
			return nil, fmt.Errorf("port %s: %w", path, os.ErrNotExist)
		}
		return benchDevice(t, f), nil
	}
	now := func() time.Time { return time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC) }
	cmd := benchCommand(open, now)
	var out, errs bytes.Buffer
	cmd.SetOut(&out)
	cmd.SetErr(&errs)
	cmd.SetArgs(args)
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	err = cmd.ExecuteContext(t.Context())
	return out.String(), errs.String(), err
}

type polledConn struct{ net.Conn }

func (p polledConn) Read(b []byte) (int, error) {
	if err := p.SetReadDeadline(time.Now().Add(20 * time.Millisecond)); err != nil {
		return 0, err
	}
	n, err := p.Conn.Read(b)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = nil
	}
	return n, err
}

// benchDevice is a host device behind a socket.
func benchDevice(t *testing.T, f *benchFiles) serial.Port {
	t.Helper()
	id := device.Identity{Class: 0x1001, Hardware: 3}
	id.Keys[0] = device.TrustKey{ID: 1, Public: f.trust}
	for i := range id.RootKey {
		id.RootKey[i] = byte(i)
	}
	h, err := device.NewHost(device.HostConfig{Layout: device.ExampleLayout(), Image: f.image, ID: id, PackageVersion: 2})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	here, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	there, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = serial.Serve(there, h) // ends with the socket
	}()
	t.Cleanup(func() {
		there.Close()
		<-done
		h.Close()
	})
	return polledConn{here}
}

func TestBench(t *testing.T) {
	f := newBenchFiles(t)
	t.Run("selftest", func(t *testing.T) {
		out, errs, err := bench(t, f, "selftest", "uart")
		if err != nil || !strings.Contains(out, "ok   firmware version") || strings.Contains(out, "FAIL") {
			t.Errorf("%v\n%s%s", err, out, errs)
		}
	})
	t.Run("selftest JSON", func(t *testing.T) {
		out, _, err := bench(t, f, "selftest", "uart", "--json")
		var rows []struct {
			Name string
			OK   bool
		}
		if err != nil || json.Unmarshal([]byte(out), &rows) != nil || len(rows) < 8 || !rows[0].OK {
			t.Errorf("%v\n%s", err, out)
		}
	})
	t.Run("feed", func(t *testing.T) {
		out, errs, err := bench(t, f, "feed", "uart", f.update, "--root-key", benchRootKey, "--loss", "0.1", "--cut-reset", "--matrix", "v2")
		if err != nil || !strings.Contains(out, "1.0.0 -> 1.1.0, proved by a reboot") {
			t.Errorf("%v\n%s%s", err, out, errs)
		}
		for _, want := range []string{"device   | firmware 1.0.0", "event    | step READY", "reset    | to install", "bench    | window open"} {
			if !strings.Contains(errs, want) {
				t.Errorf("the log lacks %q:\n%s", want, errs)
			}
		}
	})
	t.Run("feed JSON", func(t *testing.T) {
		out, errs, err := bench(t, f, "feed", "uart", f.update, "--root-key", benchRootKey, "--json")
		var doc map[string]any
		if err != nil || json.Unmarshal([]byte(out), &doc) != nil || doc["new_version"] != "1.1.0" || doc["proved_by_reboot"] != true {
			t.Errorf("%v\n%s%s", err, out, errs)
		}
	})
	for _, tt := range []struct {
		name  string
		args  []string
		usage bool
		text  string
	}{
		{"no key", []string{"feed", "uart", f.update}, true, "--root-key"},
		{"matrix of print", []string{"feed", "uart", f.update, "--root-key", benchRootKey, "--matrix", "v2abs"}, true, "v1 or v2"},
		{"loss", []string{"feed", "uart", f.update, "--root-key", benchRootKey, "--loss", "2"}, true, "--loss 2"},
		{"no port", []string{"feed", "uart"}, true, "feed"},
		{"port missing", []string{"selftest", "nowhere"}, false, "nowhere"},
		{"crossed matrix", []string{"feed", "uart", f.update, "--root-key", benchRootKey, "--matrix", "v1"}, false, "leave the matrix out"},
		{"wrong hardware", []string{"feed", "uart", f.other, "--root-key", benchRootKey}, false, "HARDWARE_MISMATCH"},
		{"no bundle", []string{"feed", "uart", f.noise, "--root-key", benchRootKey}, false, "not a bundle"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, _, err := bench(t, f, tt.args...)
			if err == nil || errors.As(err, new(usageError)) != tt.usage || !strings.Contains(err.Error(), tt.text) {
				t.Errorf("error %v, want one with %q, usage %v", err, tt.text, tt.usage)
			}
		})
	}
}
