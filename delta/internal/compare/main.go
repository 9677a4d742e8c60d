// Command compare makes patches of public firmware with package delta and with its peers, and
// prints a table: bytes of stream, ratio to the best peer, bundle bytes and fragments.
//
//	go run ./delta/internal/compare -cache DIR
//
// It fetches the npm package @pybricks/firmware (MIT) into DIR once, with npm. Peers that are
// installed take part: Python's detools, hdiffpatch and bsdiff4 (-python says which interpreter),
// and the commands bsdiff, xdelta3, zstd and xz. Every patch of ours has been decoded and compared
// before it is counted.
package main

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	_ "embed"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/sower-fuota/sower/delta"
)

//go:embed peers.py
var peersPy string

// pair is an update of one hub's firmware from one release to another.
type pair struct {
	hub, from, to string
	further       bool // not one of the seven reference pairs
}

var pairs = []pair{
	{"cityhub", "6.2.0", "7.2.0", false},
	{"cityhub", "7.22.0", "7.27.0", false},
	{"cityhub", "7.27.0", "7.28.0", false},
	{"technichub", "4.0.0", "4.0.1", false},
	{"technichub", "6.2.0", "7.2.0", false},
	{"technichub", "7.22.0", "7.27.0", false},
	{"technichub", "7.27.0", "7.28.0", false},
	{"movehub", "6.2.0", "7.2.0", true},
	{"movehub", "7.27.0", "7.28.0", true},
	{"essentialhub", "6.2.0", "7.2.0", true},
	{"essentialhub", "7.27.0", "7.28.0", true},
	{"primehub", "4.0.0", "4.0.1", true},
	{"primehub", "7.27.0", "7.28.0", true},
	{"nxt", "7.27.0", "7.28.0", true}, // ARM7, not Cortex-M
}

// Manifest and fragment sizes in bytes: a LoRaWAN payload less the header of a fragment.
const manifest = 160

var fragments = []struct {
	dr   string
	size int
}{{"DR0", 48}, {"DR3", 112}, {"DR5", 239}}

func main() {
	cache := flag.String("cache", "", "directory for downloads and patches (required)")
	python := flag.String("python", "python3", "interpreter that has detools, hdiffpatch and bsdiff4")
	ram := flag.Uint("ram", 16384, "memory of the device in bytes")
	mapRAM := flag.Bool("map-ram", false, "keep the segment map in memory")
	cycles := flag.Uint64("cycles", 0, "decode budget in Cortex-M4 cycles; 0 means the default")
	peers := flag.Bool("peers", true, "run the peers")
	all := flag.Bool("all", false, "all pairs, not only the seven reference pairs")
	flag.Parse()
	if *cache == "" {
		fmt.Fprintln(os.Stderr, "compare: -cache is required")
		os.Exit(2)
	}
	o := delta.Options{RAM: uint32(*ram), Cycles: *cycles}
	if *mapRAM {
		o.Map = delta.MapRAM
	}
	if err := run(*cache, *python, o, *peers, *all); err != nil {
		fmt.Fprintln(os.Stderr, "compare:", err)
		os.Exit(1)
	}
}

func run(cache, python string, o delta.Options, peers, all bool) error {
	fmt.Printf("%-26s %8s %8s %7s %6s %8s  %-20s", "pair", "new B", "stream B", "seconds", "RAM B", "best B", "best peer")
	fmt.Printf(" %6s  %s\n", "ratio", "bundle B and fragments at DR0 DR3 DR5")
	var ours, best int
	var logs float64
	var n int
	for _, p := range pairs {
		if p.further && !all {
			continue
		}
		old, err := firmware(cache, p.hub, p.from)
		if err != nil {
			return err
		}
		new, err := firmware(cache, p.hub, p.to)
		if err != nil {
			return err
		}
		prm, stream, err := delta.Encode(old, new, o)
		if err != nil {
			return fmt.Errorf("%s %s: %w", p.hub, p.to, err)
		}
		rep, err := delta.Inspect(prm, old, stream)
		if err != nil {
			return err
		}
		fmt.Printf("%-26s %8d %8d %7.1f %6d", p.hub+" "+p.from+" "+p.to, len(new), len(stream),
			float64(rep.Cycles)/80e6, prm.RAMBytes)
		if peers {
			name, size, err := bestPeer(cache, python, old, new)
			if err != nil {
				return err
			}
			ratio := float64(len(stream)) / float64(size)
			fmt.Printf(" %8d  %-20s %6.3f", size, name, ratio)
			ours, best, logs, n = ours+len(stream), best+size, logs+math.Log(ratio), n+1
		}
		fmt.Printf("  %d", manifest+len(stream))
		for _, f := range fragments {
			fmt.Printf(" %d", (manifest+len(stream)+f.size-1)/f.size)
		}
		fmt.Println()
	}
	if n > 0 {
		fmt.Printf("total %d of %d: %.3f, geometric mean %.3f\n", ours, best,
			float64(ours)/float64(best), math.Exp(logs/float64(n)))
	}
	return nil
}

// bestPeer returns the peer that makes the smallest patch.
func bestPeer(cache, python string, old, new []byte) (name string, size int, err error) {
	dir, err := os.MkdirTemp(cache, "peers")
	if err != nil {
		return "", 0, err
	}
	defer os.RemoveAll(dir)
	a, b, out := filepath.Join(dir, "a"), filepath.Join(dir, "b"), filepath.Join(dir, "out")
	if err := errors.Join(os.WriteFile(a, old, 0o600), os.WriteFile(b, new, 0o600)); err != nil {
		return "", 0, err
	}
	consider := func(who string, n int) {
		if n > 0 && (size == 0 || n < size) {
			name, size = who, n
		}
	}
	cmd := exec.Command(python, "-c", peersPy, a, b)
	cmd.Stderr = os.Stderr
	text, err := cmd.Output()
	if err != nil {
		fmt.Fprintln(os.Stderr, "compare: the Python peers do not run:", err)
	}
	for line := range strings.Lines(string(text)) {
		var who string
		var n int
		if _, err := fmt.Sscan(line, &who, &n); err == nil {
			consider(who, n)
		}
	}
	for who, args := range map[string][]string{
		"bsdiff":  {"bsdiff", a, b, out},
		"xdelta3": {"xdelta3", "-e", "-f", "-9", "-S", "lzma", "-s", a, b, out},
		"zstd":    {"zstd", "-q", "-f", "--ultra", "-22", "--long=27", "--patch-from=" + a, b, "-o", out},
		"xz":      {"sh", "-c", "xz -9e -c --format=raw --lzma2=preset=9e " + b + " > " + out},
	} {
		if err := exec.Command(args[0], args[1:]...).Run(); err != nil {
			fmt.Fprintf(os.Stderr, "compare: %s does not run: %v\n", who, err)
			continue
		}
		if st, err := os.Stat(out); err == nil {
			consider(who, int(st.Size()))
		}
		os.Remove(out)
	}
	if size == 0 {
		return "", 0, errors.New("no peer is installed")
	}
	return name, size, nil
}

// firmware returns the image of a hub in a release of @pybricks/firmware.
func firmware(cache, hub, version string) ([]byte, error) {
	tgz := filepath.Join(cache, "pybricks-firmware-"+version+".tgz")
	if _, err := os.Stat(tgz); err != nil {
		cmd := exec.Command("npm", "pack", "--silent", "@pybricks/firmware@"+version)
		cmd.Dir, cmd.Stderr = cache, os.Stderr
		if err := cmd.Run(); err != nil {
			return nil, fmt.Errorf("npm pack @pybricks/firmware@%s: %w", version, err)
		}
	}
	f, err := os.Open(tgz)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	gz, err := gzip.NewReader(f)
	if err != nil {
		return nil, err
	}
	for t := tar.NewReader(gz); ; {
		h, err := t.Next()
		if err != nil {
			return nil, fmt.Errorf("%s: %s.zip: %w", tgz, hub, err)
		}
		if filepath.Base(h.Name) != hub+".zip" {
			continue
		}
		data, err := io.ReadAll(t)
		if err != nil {
			return nil, err
		}
		z, err := zip.NewReader(bytes.NewReader(data), int64(len(data)))
		if err != nil {
			return nil, err
		}
		r, err := z.Open("firmware-base.bin")
		if err != nil {
			return nil, err
		}
		defer r.Close()
		return io.ReadAll(r)
	}
}
