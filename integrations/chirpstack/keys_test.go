package chirpstack_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/brocaar/lorawan"

	"github.com/sower-fuota/sower/engine/network"
	"github.com/sower-fuota/sower/integrations/chirpstack"
	"github.com/sower-fuota/sower/simulator/networkserver"
)

// The keys that TestSecretsStaySecret plants, one for each place.
var planted = map[string]network.Key{
	"AppKey of the server":    {0xa1, 0xb2, 0xc3, 0xd4, 0xe5, 0xf6, 0x17, 0x28, 1},
	"GenAppKey of the server": {0xa1, 0xb2, 0xc3, 0xd4, 0xe5, 0xf6, 0x17, 0x28, 2},
	"override":                {0xa1, 0xb2, 0xc3, 0xd4, 0xe5, 0xf6, 0x17, 0x28, 3},
	"McAppSKey":               {0xa1, 0xb2, 0xc3, 0xd4, 0xe5, 0xf6, 0x17, 0x28, 4},
	"McNwkSKey":               {0xa1, 0xb2, 0xc3, 0xd4, 0xe5, 0xf6, 0x17, 0x28, 5},
}

// shows reports whether a text has 4 bytes in a row of what is common to all planted keys, in hexadecimal, as a Go
// or JSON list of numbers, or raw.
func shows(text string) bool {
	lower := strings.ToLower(text)
	raw := []byte{0xb2, 0xc3, 0xd4, 0xe5}
	return strings.Contains(lower, hex.EncodeToString(raw)) || strings.Contains(lower, "b2 c3 d4 e5") || strings.Contains(lower, "0xb2, 0xc3, 0xd4") ||
		strings.Contains(lower, "178 195 212") || strings.Contains(lower, "178,195,212") || strings.Contains(text, string(raw))
}

// TestSecretsStaySecret runs everything that touches keys, with failures, and looks for the keys in all that comes
// out: logs, errors, reports, values printed with every verb.
func TestSecretsStaySecret(t *testing.T) {
	var out bytes.Buffer
	log := slog.New(slog.NewJSONHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug}))
	say := func(v ...any) {
		for _, x := range v {
			fmt.Fprintf(&out, "%v %+v %#v %s\n", x, x, x, x)
			if b, err := json.Marshal(x); err == nil {
				out.Write(append(b, '\n'))
			}
		}
	}
	sealed, _, err := chirpstack.SealKeys(fmt.Appendf(nil, "%s %x\n", eui(1), [16]byte(planted["override"])), []byte("passphrase-b2c3d4e5"))
	if err != nil {
		t.Fatal(err)
	}
	say(sealed)
	for _, bad := range []string{"%s %x x\n", "%[2]x %[1]s\n", "%s %x0\n", "%s g%x\n"} {
		_, _, err := chirpstack.SealKeys(fmt.Appendf(nil, bad, eui(1), [16]byte(planted["override"])), []byte("p"))
		if err == nil {
			t.Errorf("%q is accepted", bad)
		}
		say(err)
	}
	file, err := chirpstack.OpenKeyFile("keys.txt", sealed, []byte("passphrase-b2c3d4e5"))
	if err != nil {
		t.Fatal(err)
	}
	_, err = chirpstack.OpenKeyFile("keys.txt", sealed, []byte("wrong"))
	say(file, err)
	_, cs, _ := serverWith(t, 4, 0, func(c *networkserver.Config) {
		for i := range c.Devices {
			if c.Devices[i].Keys != nil {
				c.Devices[i].Keys = &networkserver.Keys{AppKey: lorawan.AES128Key(planted["AppKey of the server"]), GenAppKey: lorawan.AES128Key(planted["GenAppKey of the server"])}
			}
		}
		c.Faults.Calls = []networkserver.CallFault{{Method: "/api.DeviceService/GetKeys", First: 2, Count: 1, Effect: networkserver.ReplyLost},
			{Method: "/api.MulticastGroupService/Create", Count: 1, Effect: networkserver.ReplyLost}}
	}, func(c *chirpstack.Config) { c.Keys, c.Log = file, log })
	found := 0
	for round := range 3 {
		for i := range 5 { // 1 by the file, 2 has none, 4 does not exist
			key, err := cs.RootKey(t.Context(), eui(i))
			if err == nil {
				found++
			}
			say(key, err)
			report, err := cs.ExplainKeys(t.Context(), eui(i))
			say(report, err)
			if round == 0 {
				ready, err := cs.Readiness(t.Context(), eui(i))
				say(ready, err)
			}
			log.Info("key", "key", key, "report", report, "error", err)
		}
	}
	if found < 7 {
		t.Errorf("%d keys were found, too few for a proof", found)
	}
	g := network.Group{Name: "sower-1", Application: appID, McAddr: 1, AppSKey: planted["McAppSKey"], NwkSKey: planted["McNwkSKey"],
		Class: network.ClassC, DataRate: 5, Frequency: 869525000, Gateways: []network.EUI64{gateway}}
	for range 2 {
		id, err := cs.OpenGroup(t.Context(), g)
		say(g, id, err)
	}
	g.NwkSKey = planted["McAppSKey"]
	_, err = cs.OpenGroup(t.Context(), g)
	if !errors.Is(err, network.ErrInvalid) {
		t.Errorf("a group with another key: %v", err)
	}
	say(err)
	orphans, err := cs.Orphans(t.Context(), appID, nil)
	say(orphans, err)
	for line := range strings.Lines(out.String()) {
		if shows(line) {
			t.Errorf("a key is shown: %s", line)
		}
	}
	if !shows(fmt.Sprintf("%x", [16]byte(planted["override"]))) || !shows(fmt.Sprint([16]byte(planted["override"]))) {
		t.Error("the search finds nothing")
	}
}

func TestExplainKeys(t *testing.T) {
	sealed, _, err := chirpstack.SealKeys(fmt.Appendf(nil, "%s %x\n", eui(2), [16]byte{7}), []byte("p"))
	if err != nil {
		t.Fatal(err)
	}
	file, err := chirpstack.OpenKeyFile("keys.txt", sealed, []byte("p"))
	if err != nil {
		t.Fatal(err)
	}
	_, cs, dial := serverWith(t, 4, 0, nil, nil)
	with := dial()
	with.UseKeys(file)
	for _, tt := range []struct {
		name   string
		cs     *chirpstack.Network
		device int
		state  chirpstack.KeyState
		source string
		remedy string // part; empty: none
	}{
		{"set at the server", cs, 0, chirpstack.KeyPresent, "ChirpStack, field gen_app_key", ""},
		{"never set", cs, 1, chirpstack.KeyZero, "ChirpStack, field gen_app_key", "enter GenAppKey"},
		{"no keys at all", cs, 2, chirpstack.KeyAbsent, "ChirpStack, field gen_app_key", "override file"},
		{"override", with, 2, chirpstack.KeyPresent, "override, file keys.txt", ""},
		{"not in the override", with, 0, chirpstack.KeyPresent, "ChirpStack, field gen_app_key", ""},
	} {
		r, err := tt.cs.ExplainKeys(t.Context(), eui(tt.device))
		if err != nil || r.State != tt.state || r.Source != tt.source || (r.Remedy == "") != (tt.remedy == "") || !strings.Contains(r.Remedy, tt.remedy) ||
			r.Key != "GenAppKey" || r.MACVersion != "1.0.4" || r.Server != "4.12 or later" || len(r.Derived) != 4 || !strings.Contains(r.Derived[0], "aes128(GenAppKey, 0x00") {
			t.Errorf("%s: %+v, %v", tt.name, r, err)
		}
	}
	if _, err := cs.ExplainKeys(t.Context(), eui(99)); !errors.Is(err, network.ErrNotFound) {
		t.Errorf("no device: %v, want ErrNotFound", err)
	}
}
