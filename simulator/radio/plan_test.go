package radio_test

import (
	"testing"

	"github.com/sower-fuota/sower/airtime"
	"github.com/sower-fuota/sower/simulator/radio"
)

// TestRX1Rate holds RX1 against the tables of RP002-1.0.3, a row for each data rate of the uplink.
func TestRX1Rate(t *testing.T) {
	for region, table := range map[airtime.Region][][]int{
		airtime.EU868: {{0, 0, 0, 0, 0, 0}, {1, 0, 0, 0, 0, 0}, {2, 1, 0, 0, 0, 0}, {3, 2, 1, 0, 0, 0}, {4, 3, 2, 1, 0, 0}, {5, 4, 3, 2, 1, 0}},
		airtime.US915: {{10, 9, 8, 8}, {11, 10, 9, 8}, {12, 11, 10, 9}, {13, 12, 11, 10}, {13, 13, 12, 11}},
		airtime.AU915: {{8, 8, 8, 8, 8, 8}, {9, 8, 8, 8, 8, 8}, {10, 9, 8, 8, 8, 8}, {11, 10, 9, 8, 8, 8}, {12, 11, 10, 9, 8, 8}, {13, 12, 11, 10, 9, 8}, {13, 13, 12, 11, 10, 9}},
	} {
		p, err := radio.NewPlan(region)
		if err != nil {
			t.Fatal(err)
		}
		if p.Fixed() != (region != airtime.EU868) || p.MaxRX1Offset() != len(table[0])-1 {
			t.Errorf("%s: fixed %v, offsets up to %d", region, p.Fixed(), p.MaxRX1Offset())
		}
		for dr, row := range table {
			for offset, want := range row {
				if got := p.RX1Rate(dr, offset); got != want {
					t.Errorf("%s: RX1 after DR%d with offset %d is DR%d, want DR%d", region, dr, offset, got, want)
				}
			}
			if _, rx1 := p.RX1(p.Channels()[0], dr); rx1 != row[0] {
				t.Errorf("%s: RX1 after DR%d is DR%d, want DR%d", region, dr, rx1, row[0])
			}
		}
	}
}
