package run

import (
	"encoding/json"
	"fmt"

	"github.com/sower-fuota/sower/applayer/mcsetup"
	"github.com/sower-fuota/sower/engine/campaign"
	"github.com/sower-fuota/sower/engine/network"
	"github.com/sower-fuota/sower/engine/session"
)

// stored is an effect as a job holds it. Keys are not in it: they are derived again from the specification.
type stored struct {
	Session     int                  `json:"session"`
	Send        *session.Send        `json:"send,omitempty"`
	Broadcast   *session.Broadcast   `json:"broadcast,omitempty"`
	OpenGroup   *openGroup           `json:"open_group,omitempty"`
	CloseGroup  *session.CloseGroup  `json:"close_group,omitempty"`
	FlushDevice *session.FlushDevice `json:"flush_device,omitempty"`
	FlushGroup  *session.FlushGroup  `json:"flush_group,omitempty"`
}

// openGroup is a session.OpenGroup without keys.
type openGroup struct {
	session.OpenGroup
	Group groupWithoutKeys
}

type groupWithoutKeys struct {
	network.Group
	AppSKey, NwkSKey *struct{} `json:",omitempty"` // hide those of the group
}

func encode(eff campaign.Effect) ([]byte, error) {
	s := stored{Session: eff.Session}
	switch do := eff.Do.(type) {
	case session.Send:
		s.Send = &do
	case session.Broadcast:
		s.Broadcast = &do
	case session.OpenGroup:
		s.OpenGroup = &openGroup{do, groupWithoutKeys{Group: do.Group}}
	case session.CloseGroup:
		s.CloseGroup = &do
	case session.FlushDevice:
		s.FlushDevice = &do
	case session.FlushGroup:
		s.FlushGroup = &do
	default:
		return nil, fmt.Errorf("run: effect %T is not known", eff.Do)
	}
	return json.Marshal(s)
}

func decode(c *campaign.Campaign, data []byte) (campaign.Effect, error) {
	var s stored
	if err := json.Unmarshal(data, &s); err != nil {
		return campaign.Effect{}, fmt.Errorf("run: job of campaign %s: %w", c.ID(), err)
	}
	if s.Session < 0 || s.Session >= c.Sessions() {
		return campaign.Effect{}, fmt.Errorf("run: job of campaign %s: no session %d", c.ID(), s.Session)
	}
	eff := campaign.Effect{Session: s.Session}
	switch {
	case s.Send != nil:
		eff.Do = *s.Send
	case s.Broadcast != nil:
		eff.Do = *s.Broadcast
	case s.CloseGroup != nil:
		eff.Do = *s.CloseGroup
	case s.FlushDevice != nil:
		eff.Do = *s.FlushDevice
	case s.FlushGroup != nil:
		eff.Do = *s.FlushGroup
	case s.OpenGroup != nil:
		open := s.OpenGroup.OpenGroup
		open.Group = s.OpenGroup.Group.Group
		open.Group.AppSKey, open.Group.NwkSKey = groupKeys(c, s.Session)
		eff.Do = open
	default:
		return eff, fmt.Errorf("run: job of campaign %s holds no effect that this version knows", c.ID())
	}
	return eff, nil
}

// groupKeys are the keys of the group of a session.
func groupKeys(c *campaign.Campaign, number int) (app, nwk network.Key) {
	for _, w := range c.Spec().Waves {
		if number < len(w.Sessions) {
			s := w.Sessions[number]
			return mcsetup.McAppSKey(s.McKey, s.McAddr), mcsetup.McNwkSKey(s.McKey, s.McAddr)
		}
		number -= len(w.Sessions)
	}
	return app, nwk
}
