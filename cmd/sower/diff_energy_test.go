package main

import (
	"encoding/json"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
)

// shuffled writes a pair of images whose patch is smaller the longer the device searches: the new one repeats short
// pieces of itself at long distances.
func shuffled(t *testing.T, f func(string) string) (old, new string) {
	t.Helper()
	rng := rand.New(rand.NewPCG(5, 6))
	a := make([]byte, 24<<10)
	for i := range a {
		a[i] = byte(rng.Uint32())
	}
	b := append([]byte(nil), a...)
	for len(b) < len(a)+8<<10 {
		n := 8 + 2*rng.IntN(6)
		from := 2 * rng.IntN((len(b)-n)/2)
		b = append(b, b[from:from+n]...)
	}
	for name, data := range map[string][]byte{"a.bin": a, "b.bin": b} {
		if err := os.WriteFile(f(name), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return f("a.bin"), f("b.bin")
}

// diffChoices runs diff and returns what it weighed.
func diffChoices(t *testing.T, args ...string) []choice {
	t.Helper()
	code, out, errs := sower(append([]string{"diff", "--json"}, args...)...)
	if code != 0 {
		t.Fatal(errs)
	}
	var doc struct {
		Stream  int      `json:"stream_bytes"`
		Choices []choice `json:"choices"`
	}
	if err := json.Unmarshal([]byte(out), &doc); err != nil {
		t.Fatal(err)
	}
	for _, c := range doc.Choices {
		if c.Chosen && c.Bytes != doc.Stream {
			t.Errorf("a patch of %d bytes was chosen, one of %d written", c.Bytes, doc.Stream)
		}
	}
	return doc.Choices
}

// With a data rate, diff takes the patch that costs the least charge: where decoding is dear, one that is decoded
// faster; where the air is dear, the smallest.
func TestDiffByCharge(t *testing.T) {
	f := workspace(t)
	old, new := shuffled(t, f)
	chosen := func(extra ...string) choice {
		all := diffChoices(t, append([]string{old, new, "-o", f("p.patch")}, extra...)...)
		best := -1
		for i, c := range all {
			if c.Chosen {
				best = i
			}
		}
		if best < 0 {
			t.Fatalf("nothing was chosen of %+v", all)
		}
		for _, c := range all {
			if c.Charge < all[best].Charge {
				t.Errorf("%+v was chosen, %+v takes less", all[best], c)
			}
		}
		return all[best]
	}
	slow := chosen("--data-rate", "5", "--active-ma", "10000")
	small := chosen("--data-rate", "0", "--active-ma", "0.001")
	if slow.Decode > small.Decode || slow.Bytes < small.Bytes {
		t.Errorf("where decoding is dear %+v, where the air is dear %+v: the first takes longer to decode, or is smaller", slow, small)
	}
	if code, _, errs := sower("apply", old, f("p.patch"), "-o", f("n.bin")); code != 0 {
		t.Error(errs)
	}
	for _, args := range [][]string{
		{"--data-rate", "9"}, {"--data-rate", "5", "--region", "Mars"}, {"--data-rate", "5", "--active-ma", "-1"}, {"--data-rate", "5", "--clock-mhz", "0"},
	} {
		if code, _, errs := sower(append([]string{"diff", old, new, "-o", f("no.patch")}, args...)...); code != exitUsage || !strings.Contains(errs, args[len(args)-2]) {
			t.Errorf("diff %v: exit %d, %q; want a usage error that names the flag", args, code, errs)
		}
	}
	if _, err := os.Stat(f("no.patch")); err == nil {
		t.Error("a patch was written in spite of bad arguments")
	}
}

func TestInspectWhereTheBytesWent(t *testing.T) {
	f := workspace(t)
	old, new := shuffled(t, f)
	if code, _, errs := sower("diff", old, new, "-o", f("p.patch")); code != 0 {
		t.Fatal(errs)
	}
	doc := inspectJSON(t, f("p.patch"), "--old", old)
	raw, err := json.Marshal(doc["anatomy"])
	if err != nil {
		t.Fatal(err)
	}
	var a anatomy
	if err := json.Unmarshal(raw, &a); err != nil {
		t.Fatal(err)
	}
	sum := a.Control + a.Flags
	for _, k := range a.Kinds {
		sum += k.Bytes
	}
	// Costs are rounded per decision, and the range coder ends with a few bytes of its own.
	if stream := doc["stream_bytes"].(float64); sum < 0.95*stream-8 || sum > 1.05*stream+8 || a.Segments == 0 || a.Cycles == 0 {
		t.Errorf("the parts of the stream are %.1f bytes of %.0f, in %d segments", sum, stream, a.Segments)
	}
	if code, out, errs := sower("inspect", f("p.patch"), "--old", old); code != 0 || !strings.Contains(out, "segment map") {
		t.Errorf("exit %d: %s%s", code, out, errs)
	}
	if code, _, errs := sower("inspect", f("p.patch"), "--old", new); code != exitFailed || !strings.Contains(errs, "is not the base") {
		t.Errorf("inspect with another image as the base: exit %d, %q", code, errs)
	}
}
