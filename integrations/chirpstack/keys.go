package chirpstack

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/chirpstack/chirpstack/api/go/v4/api"

	"github.com/sower-fuota/sower/engine/network"
)

// KeySource has root keys of devices: those of ABP devices, which have no place for one at the server, those that a
// join server keeps, those of servers that never got any. A source is asked before the server.
type KeySource interface {
	// RootKey returns the root key of a device: GenAppKey for LoRaWAN 1.0.x, AppKey for 1.1. A device that the
	// source does not know is [network.ErrNotFound]. No error shows a key.
	RootKey(ctx context.Context, device network.EUI64) (network.Key, error)
	// String names the source for people.
	String() string
}

// UseKeys replaces Config.Keys. It must not be called while other calls are under way.
func (n *Network) UseKeys(source KeySource) { n.cfg.Keys = source }

// keyField names the key that TS004 and TS005 start from, and the field of the API that has it.
func keyField(lorawan11 bool) (key, field string) {
	if lorawan11 == defended("key-field") {
		return "AppKey", "app_key"
	}
	return "GenAppKey", "gen_app_key"
}

// RootKey implements [network.Network]. Config.Keys is asked first, then the server. For LoRaWAN 1.0.x ChirpStack
// keeps GenAppKey in a field of its own since 4.12; a key that was never set reads as zeros.
func (n *Network) RootKey(ctx context.Context, device network.EUI64) (network.Key, error) {
	if n.cfg.Keys != nil && defended("key-override") {
		key, err := n.cfg.Keys.RootKey(ctx, device)
		switch {
		case errors.Is(err, network.ErrNotFound):
		case err != nil:
			return network.Key{}, err
		case key == network.Key{}:
			return network.Key{}, fmt.Errorf("chirpstack: root key of %s: %w: %s has it all zero, which means not provisioned", device, network.ErrNotFound, n.cfg.Keys)
		default:
			return key, nil
		}
	}
	p, err := n.profileOf(ctx, device)
	if err != nil {
		return network.Key{}, err
	}
	key, err := n.serverKey(ctx, device, p.lorawan11)
	if err == nil && key == (network.Key{}) && defended("zero-key") {
		name, _ := keyField(p.lorawan11)
		return network.Key{}, fmt.Errorf("chirpstack: %s of %s: %w: never set; enter it under the keys of the device, or in an override file",
			name, device, network.ErrNotFound)
	}
	return key, err
}

// profileOf returns the profile of a device.
func (n *Network) profileOf(ctx context.Context, device network.EUI64) (profile, error) {
	n.mu.Lock()
	id, ok := n.devices[device]
	n.mu.Unlock()
	if !ok {
		res, err := get(ctx, n, "device "+device.String(), api.NewDeviceServiceClient(n.conn).Get, &api.GetDeviceRequest{DevEui: device.String()})
		if err != nil {
			return profile{}, err
		}
		id = res.GetDevice().GetDeviceProfileId()
		n.mu.Lock()
		n.devices[device] = id
		n.mu.Unlock()
	}
	return n.profile(ctx, id)
}

// serverKey returns the key that the server has, which may be all zero.
func (n *Network) serverKey(ctx context.Context, device network.EUI64, lorawan11 bool) (key network.Key, err error) {
	res, err := get(ctx, n, "keys of "+device.String(), api.NewDeviceServiceClient(n.conn).GetKeys, &api.GetDeviceKeysRequest{DevEui: device.String()})
	if err != nil {
		return network.Key{}, err
	}
	name, _ := keyField(lorawan11)
	text := res.GetDeviceKeys().GetGenAppKey()
	if name == "AppKey" {
		text = res.GetDeviceKeys().GetAppKey()
	}
	if text == "" {
		return network.Key{}, nil
	}
	if err := parseKey(&key, []byte(text)); err != nil {
		return network.Key{}, fmt.Errorf("chirpstack: %s of %s: %w: %w", name, device, network.ErrInvalid, err)
	}
	return key, nil
}

// parseKey reads 32 hexadecimal digits. The error does not show them.
func parseKey(key *network.Key, text []byte) error {
	if len(text) != hex.EncodedLen(len(key)) {
		return fmt.Errorf("%d characters, want a key of 32 hexadecimal digits", len(text))
	}
	if _, err := hex.Decode(key[:], text); err != nil {
		*key = network.Key{}
		return errors.New("not a key of 32 hexadecimal digits")
	}
	return nil
}

// KeyState says what is known of a root key.
type KeyState string

// The states of a root key.
const (
	KeyPresent KeyState = "present"
	KeyZero    KeyState = "zero"   // all zero: never provisioned
	KeyAbsent  KeyState = "absent" // no place has one
	KeyDenied  KeyState = "denied" // the token or the passphrase does not open it
)

// KeyReport explains where the root key of a device comes from. It has no key and nothing computed from one: a
// check value of a few bytes would let whoever reads a log test guesses at keys that are derived or weak.
type KeyReport struct {
	Device     network.EUI64 `json:"dev_eui"`
	Name       string        `json:"name"`
	Server     string        `json:"server_version"`
	MACVersion string        `json:"mac_version"`
	Key        string        `json:"key"`    // the key that counts: "GenAppKey" or "AppKey"
	Source     string        `json:"source"` // where it comes from, or would
	State      KeyState      `json:"state"`
	EndToEnd   bool          `json:"end_to_end"` // a join server keeps the session keys to itself
	Derived    []string      `json:"derived"`    // what follows from it
	Notes      []string      `json:"notes,omitempty"`
	Remedy     string        `json:"remedy,omitempty"`
}

// ExplainKeys says where the root key of a device comes from, what follows from it, and what to do if it is not
// there. It is an error only if the device cannot be asked about.
func (n *Network) ExplainKeys(ctx context.Context, device network.EUI64) (KeyReport, error) {
	r := KeyReport{Device: device}
	var err error
	if r.Server, err = n.Version(ctx); err != nil && r.Server == "" {
		return r, err
	}
	if err != nil {
		r.Notes = append(r.Notes, err.Error())
	}
	client := api.NewDeviceServiceClient(n.conn)
	dev, err := get(ctx, n, "device "+device.String(), client.Get, &api.GetDeviceRequest{DevEui: device.String()})
	if err != nil {
		return r, err
	}
	r.Name = dev.GetDevice().GetName()
	p, err := n.Profile(ctx, dev.GetDevice().GetDeviceProfileId())
	if err != nil {
		return r, err
	}
	act, err := get(ctx, n, "activation of "+device.String(), client.GetActivation, &api.GetDeviceActivationRequest{DevEui: device.String()})
	if err != nil {
		return r, err
	}
	r.MACVersion, r.EndToEnd = p.MACVersion, act.GetJoinServerContext() != nil
	var field string
	r.Key, field = keyField(p.LoRaWAN11)
	r.Derived = derived(p.LoRaWAN11)
	if p.LoRaWAN11 {
		r.Notes = append(r.Notes, "LoRaWAN 1.1: the multicast keys follow from AppKey; GenAppKey does not exist")
	} else {
		r.Notes = append(r.Notes, "LoRaWAN 1.0.x: the multicast keys follow from GenAppKey, a key of its own; the AppKey of the join, which ChirpStack calls nwk_key, is not used")
	}
	r.State, r.Source = n.explainSource(ctx, &r, "ChirpStack, field "+field, p.LoRaWAN11)
	if r.EndToEnd {
		r.Notes = append(r.Notes, "a join server encrypts the payloads of this device end to end: neither ChirpStack nor sower can read its answers")
	}
	switch {
	case r.EndToEnd:
		r.Remedy = "let the join server hand AppSKey to ChirpStack; without it no campaign can reach the device"
	case r.State == KeyDenied:
		r.Remedy = "use an API key of the device's tenant or of an administrator, or the passphrase that fits"
	case r.State == KeyPresent:
	case !p.OTAA:
		r.Remedy = "ChirpStack has no place for keys of ABP devices: put " + r.Key + " into an override file (sower keys seal)"
	default:
		r.Remedy = "enter " + r.Key + " under the keys of the device in ChirpStack, or put it into an override file (sower keys seal); it must be the one in the firmware"
	}
	return r, nil
}

// explainSource finds the key as RootKey does, and forgets it.
func (n *Network) explainSource(ctx context.Context, r *KeyReport, server string, lorawan11 bool) (KeyState, string) {
	state := func(key network.Key, err error) KeyState {
		switch {
		case errors.Is(err, network.ErrNotFound):
			return KeyAbsent
		case err != nil:
			r.Notes = append(r.Notes, err.Error())
			return KeyDenied
		case key == network.Key{}:
			return KeyZero
		}
		return KeyPresent
	}
	if n.cfg.Keys != nil {
		if st := state(n.cfg.Keys.RootKey(ctx, r.Device)); st != KeyAbsent {
			return st, "override, " + n.cfg.Keys.String()
		}
		r.Notes = append(r.Notes, n.cfg.Keys.String()+" does not have the device")
	}
	return state(n.serverKey(ctx, r.Device, lorawan11)), server
}

// derived names the keys that follow from a root key (TS005 section 4, TS004-2.0.0 section 3.1.2).
func derived(lorawan11 bool) []string {
	root := "McRootKey = aes128(GenAppKey, 0x00 | pad16)"
	block := "DataBlockIntKey = aes128(GenAppKey, 0x30 | pad16), for TS004 2.0.0"
	if lorawan11 {
		root = "McRootKey = aes128(AppKey, 0x20 | pad16)"
		block = "DataBlockIntKey = aes128(AppKey, 0x30 | pad16), for TS004 2.0.0"
	}
	return []string{root, "McKEKey = aes128(McRootKey, 0x00 | pad16), which wraps the McKey of each campaign",
		"McAppSKey, McNwkSKey: from McKey and McAddr, the same in every device of a group", block}
}
