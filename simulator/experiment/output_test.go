package experiment

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"io"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/sower-fuota/sower/simulator/radio"
)

func TestPlots(t *testing.T) {
	p := points(t, "devices = 300\nreps = 2\n[block]\nfragments = 100\n[policy]\nparity = 40\n[sweep]\nloss.p = [0.05, 0.1, 0.2]\ncode.name = [\"mds\", \"ts004-v1\"]\n")
	got := run(t, p, Options{})
	cdf, err := PlotCDF(strings.NewReader(got["cdf.csv"]))
	if err != nil {
		t.Fatal(err)
	}
	if len(cdf.Series) != 6 || cdf.Series[1].Name != "code.name = mds, loss.p = 0.1" {
		t.Errorf("%d lines, the second is %q", len(cdf.Series), cdf.Series[1].Name)
	}
	for _, s := range cdf.Series {
		for i := 1; i < len(s.X); i++ {
			if s.X[i] < s.X[i-1] || s.Y[i] < s.Y[i-1] {
				t.Fatalf("%s falls at %v", s.Name, s.X[i])
			}
		}
	}
	summary, err := PlotSummary(strings.NewReader(got["summary.csv"]), "loss.p", "sent_p50")
	if err != nil {
		t.Fatal(err)
	}
	if len(summary.Series) != 2 || len(summary.Series[0].X) != 3 {
		t.Errorf("summary: %+v", summary.Series)
	}
	for _, plot := range []Plot{cdf, summary, {Title: "<&>", Series: []Series{{Name: "flat", X: []float64{3, 4}, Y: []float64{7, 7}}}}} {
		var a, b bytes.Buffer
		if err := plot.SVG(&a); err != nil {
			t.Fatal(err)
		}
		if err := plot.SVG(&b); err != nil || !bytes.Equal(a.Bytes(), b.Bytes()) {
			t.Error("the same plot twice differs")
		}
		var picture bytes.Buffer
		if err := plot.PNG(&picture); err != nil {
			t.Fatal(err)
		}
		if img, err := png.Decode(&picture); err != nil || img.Bounds().Dx() != 1080 || !colourful(img) {
			t.Errorf("%s: no picture with a line in it (%v)", plot.Title, err)
		}
		d := xml.NewDecoder(&a)
		for {
			if _, err := d.Token(); err == io.EOF {
				break
			} else if err != nil {
				t.Fatalf("no XML: %v", err)
			}
		}
		if strings.Contains(b.String(), "NaN") || strings.Contains(b.String(), "Inf") {
			t.Errorf("%s: a coordinate is not finite", plot.Title)
		}
	}
	for _, bad := range []struct {
		in, x, y, want string
	}{{"", "a", "b", "no rows"}, {"scenario,point\nx,0\n", "a", "b", `no column "a"`}, {"scenario,point,a,b\nx,0,one,2\n", "a", "b", `"one" is no number`}} {
		if _, err := PlotSummary(strings.NewReader(bad.in), bad.x, bad.y); err == nil || !strings.Contains(err.Error(), bad.want) {
			t.Errorf("%q: %v, want %q", bad.in, err, bad.want)
		}
	}
	if err := (Plot{}).SVG(io.Discard); err == nil {
		t.Error("an empty plot was drawn")
	}
	if err := (Plot{Series: make([]Series, 29)}).SVG(io.Discard); err == nil || !strings.Contains(err.Error(), "29 lines") {
		t.Errorf("29 lines: %v", err)
	}
}

// colourful says whether a picture has pixels of the first colour of the palette.
func colourful(img image.Image) bool {
	for y := range img.Bounds().Dy() {
		for x := range img.Bounds().Dx() {
			if color.RGBAModel.Convert(img.At(x, y)) == palette[0] {
				return true
			}
		}
	}
	return false
}

// TestFitFindsWhatWasPutIn makes traces of known processes.
func TestFitFindsWhatWasPutIn(t *testing.T) {
	get := func(l radio.Loss, err error) radio.Loss {
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	trace := func(l radio.Loss, devices, frames int) *radio.Trace {
		out := &radio.Trace{}
		for d := range devices {
			dev := radio.DeviceTrace{Name: fmt.Sprintf("%04d", d)}
			for i := range frames {
				at := time.Duration(i) * 10 * time.Second
				dev.Records = append(dev.Records, radio.Record{At: at, Lost: l.Lost(radio.Link{Device: uint64(d)}, radio.Slot{Fragment: uint32(i), At: at})})
			}
			out.Devices = append(out.Devices, dev)
		}
		return out
	}
	bursts, err := radio.Bursts(10*time.Second, 0.1, 50*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name  string
		loss  radio.Loss
		check func(Fit) bool
		model string
	}{
		{"iid", get(radio.NewBernoulli(1, 0.2)), func(f Fit) bool { return math.Abs(f.Loss()-0.2) < 0.01 && math.Abs(f.MeanBurst-1.25) < 0.05 }, `"iid"`},
		{"bursts", get(bursts.New(1)), func(f Fit) bool { return math.Abs(f.Loss()-0.1) < 0.01 && math.Abs(f.MeanBurst-5) < 0.4 }, `"gilbert-elliott"`},
		{"beta", get(radio.NewBeta(1, 2, 8)), func(f Fit) bool { return math.Abs(f.A-2) < 0.7 && math.Abs(f.B-8) < 2.5 }, `"beta"`},
	} {
		f, err := FitTrace(trace(tt.loss, 200, 1000))
		if err != nil {
			t.Fatal(err)
		}
		if !tt.check(f) || f.Spacing != 10*time.Second {
			t.Errorf("%s: %+v", tt.name, f)
		}
		text := f.TOML()
		if !strings.Contains(text, "model = "+tt.model) {
			t.Errorf("%s: proposes\n%s", tt.name, text)
		}
		if _, err := Points([]byte("name = \"fit\"\n[block]\nfragments = 100\n" + text)); err != nil {
			t.Errorf("%s: the proposal is no scenario: %v", tt.name, err)
		}
	}
	if _, err := FitTrace(&radio.Trace{Devices: []radio.DeviceTrace{{Name: "a", Records: []radio.Record{{}}}}}); err == nil {
		t.Error("one frame was enough to fit")
	}
}

func TestCompatRefusesTheImpossible(t *testing.T) {
	ok := FUOTASim{Devices: 10, DataRate: 5, Firmware: 5000, Fragment: 100, Redundancy: 3}
	for _, c := range []func(*FUOTASim){
		func(c *FUOTASim) { c.Devices = 0 }, func(c *FUOTASim) { c.DataRate = 7 }, func(c *FUOTASim) { c.Periodicity = -1 },
		func(c *FUOTASim) { c.Fragment = 2 }, func(c *FUOTASim) { c.Firmware = 0 }, func(c *FUOTASim) { c.Redundancy = -1 },
	} {
		broken := ok
		c(&broken)
		if _, err := broken.Run(1); err == nil {
			t.Errorf("%+v ran", broken)
		}
	}
	a, err := ok.Run(3)
	if err != nil {
		t.Fatal(err)
	}
	if b, _ := ok.Run(3); a != b {
		t.Error("one seed, two results")
	}
	for _, c := range []FUOTAA{{6, 2000, 39}, {0, 0, 39}, {0, 2000, 3}} {
		if _, err := c.Run(); err == nil {
			t.Errorf("%+v ran", c)
		}
	}
}
