package rehearse_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/sower-fuota/sower/applayer/diag"
	"github.com/sower-fuota/sower/bundle"
	"github.com/sower-fuota/sower/simulator/rehearse"
)

// firmware is where `make firmware` puts what it builds.
const firmware = "../../build/firmware"

var start = time.Date(2026, 11, 22, 6, 0, 0, 0, time.UTC)

// signer is a signing key and the images it signs.
type signer struct {
	t   testing.TB
	key *ecdsa.PrivateKey
}

func newSigner(t testing.TB) signer {
	key, err := bundle.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	return signer{t, key}
}

// image reads a build of the example application.
func (s signer) image(name string, minor uint8) []byte {
	s.t.Helper()
	raw, err := os.ReadFile(filepath.Join(firmware, name))
	if err != nil {
		s.t.Fatalf("run `make firmware` first: %v", err)
	}
	img, err := rehearse.WrapImage(raw, 1, minor, 0x21000000, s.key)
	if err != nil {
		s.t.Fatal(err)
	}
	return img
}

func (s signer) update(old, new []byte) rehearse.Update {
	s.t.Helper()
	u, err := rehearse.NewUpdate(old, new, s.key)
	if err != nil {
		s.t.Fatal(err)
	}
	return u
}

// transcript collects what emulated devices print, by group.
type transcript map[string][]string

func (tr transcript) line(l rehearse.ConsoleLine) {
	if l.Kind == rehearse.Emulated {
		tr[l.Group] = append(tr[l.Group], l.Text)
	}
}

func (tr transcript) has(t *testing.T, group string, lines ...string) {
	t.Helper()
	rest := tr[group]
	for _, want := range lines {
		found := false
		for i, l := range rest {
			if strings.Contains(l, want) {
				rest, found = rest[i+1:], true
				break
			}
		}
		if !found {
			t.Errorf("%s: the console does not say %q in its place:\n%s", group, want, strings.Join(tr[group], "\n"))
			return
		}
	}
}

func TestEveryDeviceIsUpdated(t *testing.T) {
	t.Parallel()
	s := newSigner(t)
	u := s.update(s.image("beacon-1.0.0.bin", 0), s.image("beacon-1.1.0.bin", 1))
	said := transcript{}
	cfg := rehearse.Config{
		Seed: 1, Start: start, Loss: 0.10, BootStub: filepath.Join(firmware, "boot.elf"), Console: said.line,
		Groups: []rehearse.Group{{Name: "beacon", Update: u, Trust: &s.key.PublicKey, Hosts: 8, Emulated: 1}},
	}
	first, err := rehearse.Run(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	var table bytes.Buffer
	if err := first.WriteTable(&table); err != nil {
		t.Fatal(err)
	}
	t.Logf("%s\nvirtual time %s", &table, first.Elapsed)
	sum := first.Summary()
	if sum.Devices != 9 || sum.Updated != 9 || sum.ExecutedBoots != 1 || sum.ModelledBoots != 8 {
		t.Errorf("summary %+v, want 9 devices updated, 1 boot executed and 8 modelled", sum)
	}
	if sum.FragmentsSent <= sum.DataFragments || sum.Airtime >= sum.CompressedAirtime || sum.CompressedAirtime >= sum.FullAirtime {
		t.Errorf("summary %+v: want parity to be sent and the patch to be cheaper than the compressed image", sum)
	}
	said.has(t, "beacon", "firmware 1.0.0", "self-test passed", "on trial", "firmware 1.1.0", "self-test passed")

	// The same seed gives the same run, to the last boot and fragment.
	again, err := rehearse.Run(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(first, again) {
		t.Errorf("two runs with one seed differ:\n%+v\n%+v", first, again)
	}
}

// Every failure leaves the devices on 1.0.0, running and reachable, and the campaign says at which step and
// why: on the emulated device, where it is executed, and on a host device.
func TestFailuresAreReportedAndHarmless(t *testing.T) {
	t.Parallel()
	s, stranger := newSigner(t), newSigner(t)
	old, new := s.image("beacon-1.0.0.bin", 0), s.image("beacon-1.1.0.bin", 1)
	otherBase := s.image("beacon-1.1.0-hang.bin", 0)
	tests := []struct {
		name    string
		update  rehearse.Update
		flip    *rehearse.Flip
		step    diag.Step
		cause   diag.Cause
		console []string
	}{
		{
			name: "wrong signature", update: stranger.update(old, new),
			step: diag.StepManifest, cause: diag.CauseSignatureBad,
		},
		{
			name: "other base", update: func() rehearse.Update {
				u := s.update(otherBase, new)
				u.Old, u.From = old, bundle.MakeVersion(1, 0, 0)
				return u
			}(),
			step: diag.StepManifest, cause: diag.CauseBaseMismatch,
		},
		{
			name: "self-test fails", update: s.update(old, s.image("beacon-1.1.0-selftest.bin", 1)),
			step: diag.StepTrial, cause: diag.CauseSelfTestFailed,
			console: []string{"on trial", "firmware 1.1.0", "self-test FAILED", "rolled back", "firmware 1.0.0"},
		},
		{
			name: "hangs", update: s.update(old, s.image("beacon-1.1.0-hang.bin", 1)),
			step: diag.StepTrial, cause: diag.CauseBootHang,
			console: []string{"on trial", "never answers", "on trial", "never answers", "rolled back", "firmware 1.0.0"},
		},
		{
			name: "bit flipped in slot B", update: s.update(old, new), flip: &rehearse.Flip{Offset: 0x1234, Bit: 5},
			step: diag.StepInstall, cause: diag.CauseImageDigestBad,
			console: []string{"was not booted", "firmware 1.0.0"},
		},
	}
	said := transcript{}
	cfg := rehearse.Config{
		Seed: 2, Start: start, Loss: 0.10, BootStub: filepath.Join(firmware, "boot.elf"), Console: said.line,
	}
	for _, tt := range tests {
		cfg.Groups = append(cfg.Groups, rehearse.Group{
			Name: tt.name, Update: tt.update, Trust: &s.key.PublicKey, Hosts: 1, Emulated: 1, FlipSlotB: tt.flip,
		})
	}
	report, err := rehearse.Run(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	var table bytes.Buffer
	if err := report.WriteTable(&table); err != nil {
		t.Fatal(err)
	}
	t.Log(table.String())
	for _, tt := range tests {
		n := 0
		for _, o := range report.Outcomes {
			if o.Group != tt.name {
				continue
			}
			n++
			if o.Updated || !o.Intact || o.Runs != "1.0.0" {
				t.Errorf("%s, %s: updated %v, slot A valid %v, runs %s; want 1.0.0, running", o.Group, o.Name, o.Updated, o.Intact, o.Runs)
			}
			if o.Step != tt.step.String() || o.Cause != tt.cause.String() {
				t.Errorf("%s, %s: the campaign says %s at %s, want %s at %s", o.Group, o.Name, o.Cause, o.Step, tt.cause, tt.step)
			}
		}
		if n != 2 {
			t.Errorf("%s: %d devices in the report, want 2", tt.name, n)
		}
		said.has(t, tt.name, append([]string{"firmware 1.0.0", "self-test passed"}, tt.console...)...)
	}
}
