package fragmentation

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
)

// The multiples of 64 that are no power of two, and they alone, have twins in every matrix.
func TestTwinsAreTheMultiplesOf64(t *testing.T) {
	var many []int
	for m := 20; m <= trials(330, 2100); m++ {
		many = append(many, m)
	}
	for m := 384; m <= trials(1100, 8192); m += 64 {
		many = append(many, m-1, m, m+1)
	}
	holes := 0
	for _, m := range many {
		for _, matrix := range matrices {
			pairs := matrixPairs(m, matrix, twinShare)
			hole := m%64 == 0 && m&(m-1) != 0
			if !hole && len(pairs) != 0 || hole && len(pairs) != 2 {
				t.Errorf("M=%d %v: twins %v", m, matrix, pairs)
				continue
			}
			if !hole {
				continue
			}
			holes++
			// Where theory puts them, counted from 0: M/2 with (1-2^23) mod M, and M/2-1 with
			// (-2-2^23) mod M.
			at := func(a, b int) string {
				b = (b%m + m) % m
				return fmt.Sprint(min(a, b)+1, max(a, b)+1)
			}
			want, mirror := at(m/2, 1-1<<23), at(m/2-1, -2-1<<23)
			for _, p := range pairs {
				if got := fmt.Sprint(p.A, p.B); got != want && got != mirror {
					t.Errorf("M=%d %v: twins %v, theory says %s and %s", m, matrix, pairs, want, mirror)
				}
			}
		}
	}
	t.Logf("%d numbers of fragments searched, %d with twins", len(many), holes/3)
}

// The table of pairs that a C decoder confirmed: rows that split them, of all legal ones.
func TestSplittersOfKnownPairs(t *testing.T) {
	for _, tt := range []struct{ m, a, b, rows int }{
		{192, 66, 97, 203}, {192, 63, 96, 197}, {384, 193, 258, 92}, {768, 258, 385, 45}, {768, 255, 384, 47},
		{960, 481, 834, 37}, {1536, 769, 1026, 23}, {3072, 1026, 1537, 10}, {4032, 1986, 2017, 7},
	} {
		found := splitters(tt.m, V1, []Twin{{A: tt.a, B: tt.b}}, MaxIndex)[0]
		if len(found) != tt.rows {
			t.Errorf("M=%d: %d rows tell %d and %d apart, want %d", tt.m, len(found), tt.a, tt.b, tt.rows)
		}
		for _, n := range found {
			row, err := Row(tt.m, V1, n)
			if err != nil || row.Has(tt.a-1) == row.Has(tt.b-1) {
				t.Fatalf("M=%d: row %d does not tell %d and %d apart (%v)", tt.m, n, tt.a, tt.b, err)
			}
		}
	}
	// The repair that a device needs, beyond the splitting row itself: M=768, lost 258 and 385.
	first := splitters(768, V1, []Twin{{A: 258, B: 385}}, 1)[0][0]
	if used, done := parityUsed(t, 768, 600, V1, []int{257, 384}); !done || used != first-768 || used != 512 {
		t.Errorf("complete %v after %d parity fragments, want 512; the first splitting row is %d", done, used, first)
	}
}

func TestInspect(t *testing.T) {
	repeat := func(n, times int) (list []int) {
		for range times {
			list = append(list, n)
		}
		return list
	}
	tests := []struct {
		name   string
		m      int
		matrix Matrix
		list   []int
		want   string
	}{
		{"sound", 300, V1, Sequence(300, 100), "uncovered 0 twins [] echoes [] even false"},
		{"no parity at all", 5, V1, nil, "uncovered 5 twins [] echoes [] even false"},
		{"interop file: five rows miss fragments", 21, V1, Sequence(21, 5), "uncovered 3 twins [] echoes [] even false"},
		{"twins", 768, V1, Sequence(768, 128), "uncovered 0 twins [{255 384 0} {258 385 0}] echoes [] even false"},
		{"even rows, enough to tempt", 300, V2, Sequence(300, 300), "uncovered 0 twins [] echoes [] even true"},
		{"even rows, short list", 300, V2, Sequence(300, 100), "uncovered 0 twins [] echoes [] even false"},
		{"odd rows", 302, V2, Sequence(302, 302), ""},
		{"echo in the absolute matrix", 1451, V2Absolute, Sequence(1451, 40), "uncovered 0 twins [] echoes [{1480 1465 20} ] even false"},
		{"an index twice", 100, V1, append(Sequence(100, 31), repeat(101, 1)...), ""},
		{"single fragment", 1, V1, Sequence(1, 4), "uncovered 1 twins [] echoes [{3 2 0} {4 2 0} {5 2 0} ] even true"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := Inspect(mustCode(t, tt.m, tt.matrix, tt.list))
			echoes := "["
			for _, e := range w.Echoes {
				echoes += fmt.Sprint(e) + " "
			}
			got := fmt.Sprintf("uncovered %d twins %v echoes %s] even %v", len(w.Uncovered), w.Twins, echoes, w.EvenOnly)
			switch tt.name {
			case "odd rows":
				if w.EvenOnly {
					t.Error("rows of 151 ones are not even")
				}
			case "an index twice":
				if n := len(w.Echoes); n == 0 || w.Echoes[n-1] != (Echo{N: 101, Of: 101}) {
					t.Errorf("echoes %v, want the repeated 101 last", w.Echoes)
				}
			default:
				if got != tt.want {
					t.Errorf("%s, want %s", got, tt.want)
				}
			}
			if any := got != "uncovered 0 twins [] echoes [] even false"; w.Any() != any {
				t.Errorf("Any() = %v for %s", w.Any(), got)
			}
		})
	}
}

// Every weakness is real: the losses it names cannot be repaired by the list, by payload.
func TestWeaknessesAreReal(t *testing.T) {
	stuck := func(m int, matrix Matrix, list []int, lost ...int) int {
		d := mustDecoder(t, m, 1, matrix)
		gone := NewBitset(m + 1)
		for _, n := range lost {
			gone.Set(n)
		}
		for n := 1; n <= m; n++ {
			if !gone.Has(n) {
				mustAdd(t, d, n, []byte{0})
			}
		}
		for _, n := range list {
			mustAdd(t, d, n, []byte{0})
		}
		return d.Missing()
	}
	list := Sequence(21, 5)
	w := Inspect(mustCode(t, 21, V1, list))
	for n := 1; n <= 21; n++ {
		uncovered := false
		for _, u := range w.Uncovered {
			uncovered = uncovered || u == n
		}
		if got := stuck(21, V1, list, n); (got == 1) != uncovered {
			t.Errorf("fragment %d lost: %d missing, uncovered %v", n, got, uncovered)
		}
	}
	list = Sequence(960, 128)
	twins := Inspect(mustCode(t, 960, V2, list)).Twins
	if len(twins) != 2 {
		t.Fatalf("M=960: twins %v", twins)
	}
	for _, tw := range twins {
		if tw.Apart == 0 && stuck(960, V2, list, tw.A, tw.B) != 1 {
			t.Errorf("twins %v are repaired by rows that do not tell them apart", tw)
		}
		if stuck(960, V2, list, tw.A) != 0 || stuck(960, V2, list, tw.B) != 0 {
			t.Errorf("one of the twins %v alone is not repaired", tw)
		}
	}
	all := make([]int, 300)
	for i := range all {
		all[i] = i + 1
	}
	if got := stuck(300, V2, Sequence(300, 4000), all...); got != 1 {
		t.Errorf("M=300 V2, parity only: %d missing, want 1", got)
	}
}

// The trap of even rows is exactly where floor(M/2) is even, and in V2 only.
func TestEvenRowTrap(t *testing.T) {
	for m := 8; m <= 260; m++ {
		for _, matrix := range matrices {
			want := matrix != V1 && (m%4 == 0 || m%4 == 1)
			if got := Inspect(mustCode(t, m, matrix, Sequence(m, m))).EvenOnly; got != want {
				t.Errorf("M=%d %v: even rows only: %v, want %v", m, matrix, got, want)
			}
		}
	}
}

// The floor is the share of devices that fail for good: M=768 at 10 % loss, 2 %.
func TestFloorIsMeasured(t *testing.T) {
	const p = 0.1
	list := Sequence(768, 128)
	code := mustCode(t, 768, V1, list)
	floor := Inspect(code).Floor(p)
	if want := 2 * p * p; math.Abs(floor-want) > 1e-12 {
		t.Fatalf("floor %v, want %v", floor, want)
	}
	n := trials(20000, 400000)
	o := Measure(code, p, n, rand.NewPCG(1, 1))
	got := float64(o.Incomplete) / float64(n)
	want, sigma := 1-(1-p*p)*(1-p*p), math.Sqrt(0.02/float64(n))
	if math.Abs(got-want) > 4*sigma+1e-4 {
		t.Errorf("%.4f of the devices fail for good, want %.4f", got, want)
	}
	mended, _, err := ParityList(768, V1, 128, p)
	if err != nil {
		t.Fatal(err)
	}
	if f := Inspect(mustCode(t, 768, V1, mended)).Floor(p); f > 1e-6 {
		t.Errorf("with splitting rows the floor is %v, want 1e-6 or less", f)
	}
}

func ExampleInspect() {
	for _, m := range []int{768, 769} {
		code, err := NewCode(m, V1, Sequence(m, 200))
		if err != nil {
			panic(err)
		}
		w := Inspect(code)
		fmt.Printf("M=%d: twins %v, floor at 10 %% loss %.4f\n", m, w.Twins, w.Floor(0.10))
	}
	// Output:
	// M=768: twins [{255 384 0} {258 385 0}], floor at 10 % loss 0.0200
	// M=769: twins [], floor at 10 % loss 0.0000
}
