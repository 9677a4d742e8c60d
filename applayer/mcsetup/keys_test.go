package mcsetup_test

import (
	"encoding/hex"
	"encoding/json"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"

	"github.com/brocaar/lorawan"
	"github.com/brocaar/lorawan/applayer/multicastsetup"

	"github.com/sower-fuota/sower/applayer/mcsetup"
)

func key(t *testing.T, s string) [16]byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != 16 {
		t.Fatalf("key %q: %v", s, err)
	}
	return [16]byte(b)
}

// The vectors are what four independent implementations agree on.
func TestKeyVectors(t *testing.T) {
	b, err := os.ReadFile("testdata/multicast_keys.json")
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Vectors []struct {
			LoRaWAN        string
			RootKey        string `json:"root_key"`
			McKey          string
			McAddr         string `json:"McAddr_be"`
			McRootKey      string
			McKEKey        string
			McKeyEncrypted string `json:"McKey_encrypted"`
			McAppSKey      string
			McNwkSKey      string
		}
	}
	if err := json.Unmarshal(b, &file); err != nil {
		t.Fatal(err)
	}
	if len(file.Vectors) != 8 {
		t.Fatalf("%d vectors, want 8", len(file.Vectors))
	}
	for _, v := range file.Vectors {
		t.Run(v.LoRaWAN+"/"+v.RootKey, func(t *testing.T) {
			addr64, err := strconv.ParseUint(v.McAddr, 16, 32)
			if err != nil {
				t.Fatal(err)
			}
			addr, mcKey := uint32(addr64), key(t, v.McKey)
			root := mcsetup.McRootKeyFromGenAppKey(key(t, v.RootKey))
			if v.LoRaWAN == "1.1" {
				root = mcsetup.McRootKeyFromAppKey(key(t, v.RootKey))
			}
			kek := mcsetup.McKEKey(root)
			for _, c := range []struct {
				name string
				got  [16]byte
				want string
			}{
				{"McRootKey", root, v.McRootKey},
				{"McKEKey", kek, v.McKEKey},
				{"EncryptMcKey", mcsetup.EncryptMcKey(kek, mcKey), v.McKeyEncrypted},
				{"DecryptMcKey", mcsetup.DecryptMcKey(kek, key(t, v.McKeyEncrypted)), v.McKey},
				{"McAppSKey", mcsetup.McAppSKey(mcKey, addr), v.McAppSKey},
				{"McNwkSKey", mcsetup.McNwkSKey(mcKey, addr), v.McNwkSKey},
			} {
				if got := hex.EncodeToString(c.got[:]); got != c.want {
					t.Errorf("%s = %s, want %s", c.name, got, c.want)
				}
			}
		})
	}
}

// Random keys and addresses against another implementation.
func TestKeysAgreeWithOracle(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	random := func() (k [16]byte) {
		for i := range k {
			k[i] = byte(rng.Uint32())
		}
		return k
	}
	for range 1000 {
		root, mcKey, addr := random(), random(), rng.Uint32()
		devAddr := lorawan.DevAddr{byte(addr >> 24), byte(addr >> 16), byte(addr >> 8), byte(addr)}
		oracle := func(k lorawan.AES128Key, err error) [16]byte {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
			return k
		}
		kek := mcsetup.McKEKey(root)
		if got, want := mcsetup.McRootKeyFromGenAppKey(root), oracle(multicastsetup.GetMcRootKeyForGenAppKey(root)); got != want {
			t.Fatalf("McRootKeyFromGenAppKey(%x) = %x, want %x", root, got, want)
		}
		if got, want := mcsetup.McRootKeyFromAppKey(root), oracle(multicastsetup.GetMcRootKeyForAppKey(root)); got != want {
			t.Fatalf("McRootKeyFromAppKey(%x) = %x, want %x", root, got, want)
		}
		if want := oracle(multicastsetup.GetMcKEKey(root)); kek != want {
			t.Fatalf("McKEKey(%x) = %x, want %x", root, kek, want)
		}
		if got, want := mcsetup.McAppSKey(mcKey, addr), oracle(multicastsetup.GetMcAppSKey(mcKey, devAddr)); got != want {
			t.Fatalf("McAppSKey(%x, %08x) = %x, want %x", mcKey, addr, got, want)
		}
		if got, want := mcsetup.McNwkSKey(mcKey, addr), oracle(multicastsetup.GetMcNetSKey(mcKey, devAddr)); got != want {
			t.Fatalf("McNwkSKey(%x, %08x) = %x, want %x", mcKey, addr, got, want)
		}
		if got := mcsetup.DecryptMcKey(kek, mcsetup.EncryptMcKey(kek, mcKey)); got != mcKey {
			t.Fatalf("McKey %x came back as %x", mcKey, got)
		}
	}
}
