package prepare

import (
	"github.com/sower-fuota/sower/engine/inventory"
	"github.com/sower-fuota/sower/engine/network"
)

// Device returns what is known of a device of the campaign, or nil.
func (c *Campaign) Device(eui network.EUI64) *inventory.Device { return c.devices[eui] }
