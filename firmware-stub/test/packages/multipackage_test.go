package packages_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/sower-fuota/sower/firmware-stub/test/packages/cpkg"
)

func TestMultiPackage(t *testing.T) {
	for _, tt := range []struct{ name, down, up string }{
		{"only a token", "02", ""},
		{"version", "0001", "225:00000101"},
		{"reserved token bits", "00fe", "225:00000102"},
		{"unknown package", "840185010200", "225:8401040302010000000000"},
		{"fragment", "8308010011223301", ""},
		{"command without an answer", "81030003", ""},
		{"package stays selected", "8400000402", "225:84000401" + "000401" + "0400" + "02"},
		{"status at once", "83010103", "225:83010403"},
		{"diagnostics are not a package", "850101", ""},
		{"truncated command", "840102aabb01", "225:840104030201000000" + "0001"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			newDevice(t, cpkg.Options{})
			expect(t, "uplinks", ask(t, now, 225, tt.down), tt.up)
		})
	}
}

// The example of the specification: 20 bytes over uplinks of 11 leave as 8, 8 and 4.
func TestMultiPackFragments(t *testing.T) {
	newDevice(t, cpkg.Options{MaxPayload: 11})
	// DevVersionAns twice and its prefix are 19 bytes, PackageVersionAns makes 22.
	ans := "84" + "010403020100000000" + "010403020100000000" + "000401"
	expect(t, "pieces", ask(t, now, 225, "8401010003"), fmt.Sprintf("225:0200%s03 225:0208%s03 225:0210%s03", ans[:16], ans[16:32], ans[32:]))
	expect(t, "a piece again", ask(t, now, 225, "02080f"), fmt.Sprintf("225:0208%s03", ans[16:32]))
	expect(t, "with its prefix", ask(t, now, 225, "8002080f"), fmt.Sprintf("225:0208%s03", ans[16:32]))
	expect(t, "to the end", ask(t, now, 225, "0212ff"), fmt.Sprintf("225:0212%s03", ans[36:]))
	expect(t, "one byte", ask(t, now, 225, "021515"), fmt.Sprintf("225:0215%s03", ans[42:]))
	expect(t, "behind the end", ask(t, now, 225, "021620"), "225:02ff03")
	expect(t, "backwards", ask(t, now, 225, "020807"), "225:02ff03")
}

// The buffer has 128 bytes: commands whose answers might not fit are not run.
func TestMultiPackOverflow(t *testing.T) {
	newDevice(t, cpkg.Options{})
	var got strings.Builder
	for i, u := range strings.Fields(ask(t, now, 225, "84"+strings.Repeat("01", 30)+"03640000"+"02")) {
		if want := fmt.Sprintf("225:02%02x", 48*i); !strings.HasPrefix(u, want) {
			t.Errorf("piece %s, want %s", u, want)
		}
		got.WriteString(u[8 : len(u)-2])
	}
	expect(t, "answers", got.String(), "84"+strings.Repeat("010403020100000000", 12))
	drainUntil(now, now+1000)
	expectCounts(t, "a reboot whose answer did not fit", 0, 0)
}
