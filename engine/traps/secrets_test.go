package traps_test

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"testing"

	"github.com/sower-fuota/sower/applayer/datablock"
	"github.com/sower-fuota/sower/applayer/mcsetup"
	"github.com/sower-fuota/sower/integrations/chirpstack"
	"github.com/sower-fuota/sower/simulator/networkserver"
)

// TestNoKeyInTheLog runs a whole campaign with known keys, failing calls and a device without a key, and looks for
// every key, the derived ones too, in all that engine and integration say.
func TestNoKeyInTheLog(t *testing.T) {
	var out bytes.Buffer
	r := (&probe{t: t}).campaign(order{
		server: func(c *networkserver.Config) {
			c.Devices[1].Keys.GenAppKey = [16]byte{}
			c.Faults.Calls = []networkserver.CallFault{{Share: 0.1, First: 10, Effect: networkserver.ReplyLost}}
		},
		client: func(c *chirpstack.Config) {
			c.Log = slog.New(slog.NewJSONHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug}))
		},
	})
	for _, x := range []any{r.log, r.rows, r.progress, r.plan} {
		fmt.Fprintf(&out, "%+v %#v\n", x, x)
		b, err := json.Marshal(x)
		if err != nil {
			t.Fatal(err)
		}
		out.Write(append(b, '\n'))
	}
	keys := map[string][16]byte{"McKey": groupKey,
		"McAppSKey": mcsetup.McAppSKey(groupKey, mcAddr), "McNwkSKey": mcsetup.McNwkSKey(groupKey, mcAddr)}
	for i := range r.rows {
		root := [16]byte(rootKey(i))
		mcRoot := mcsetup.McRootKeyFromGenAppKey(root)
		for name, key := range map[string][16]byte{"GenAppKey": root, "McRootKey": mcRoot, "McKEKey": mcsetup.McKEKey(mcRoot),
			"McKey encrypted": mcsetup.EncryptMcKey(mcsetup.McKEKey(mcRoot), groupKey), "DataBlockIntKey": datablock.DataBlockIntKey(root)} {
			keys[fmt.Sprintf("%s of device %d", name, i)] = key
		}
	}
	text := out.Bytes()
	for name, key := range keys {
		numbers, err := json.Marshal(key)
		if err != nil {
			t.Fatal(err)
		}
		for form, find := range map[string][]byte{"hexadecimal": hex.AppendEncode(nil, key[:]), "base64": base64.StdEncoding.AppendEncode(nil, key[:15]),
			"a list": numbers, "a Go list": fmt.Append(nil, key), "raw": key[:]} {
			if bytes.Contains(bytes.ToLower(text), bytes.ToLower(find)) && form != "base64" || bytes.Contains(text, find) {
				t.Errorf("%s is shown as %s", name, form)
			}
		}
	}
	if len(text) < 10_000 || r.updated() != 3 || !bytes.Contains(text, []byte("McGroupSetupReq")) {
		t.Errorf("%d bytes of log, %d of 3 devices updated: too little for a proof", len(text), r.updated())
	}
}
