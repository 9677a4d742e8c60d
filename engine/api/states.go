package api

import "github.com/sower-fuota/sower/engine/session"

// state is what a stage of a device means for an operator.
type state struct{ Happening, Next string }

// states explains every stage of package session. docs/operate.md shows the same table, and a test compares them.
var states = map[session.Stage]state{
	session.StageDiscover:   {"package version, running version or clock are being asked for", "wait for its next uplinks; everything asked of a class A device waits for one"},
	session.StageGroup:      {"the multicast group is being set up", "wait for its next uplink"},
	session.StageSession:    {"the fragmentation session is being set up", "wait for its next uplink"},
	session.StagePrepared:   {"it is set up and waits for a receive window", "wait until the other devices of the session are ready"},
	session.StageArmed:      {"it has confirmed the receive window", "wait for the window to open"},
	session.StageReceiving:  {"fragments were sent; what it holds is not known yet", "wait for its status answer"},
	session.StageIncomplete: {"it is known to miss fragments", "wait: parity is sent as long as the device is worth it"},
	session.StageRepair:     {"it gets what it misses by single messages", "wait for its next uplinks; each fetches one"},
	session.StageComplete:   {"it holds the block, verifies it and applies the patch", "wait a few minutes and for an uplink"},
	session.StageReady:      {"a valid image waits in slot B", "wait for the reboot command to reach it"},
	session.StageRebooting:  {"it was told to reboot and installs the image", "wait for it to join and report"},
	session.StageProving:    {"it runs the new version, and must be heard again without a reset", "wait for its next uplinks"},
	session.StageUpdated:    {"it runs the new version and was heard again", "nothing to do"},
	session.StageFailed:     {"it was given up", "read the cause"},
	session.StageUnproven:   {"it holds the block; nothing proves what it runs", "look at the device, or choose a proof in the campaign file"},
	session.StageWithheld:   {"it was taken out of the session before it was told to reboot", "read why the campaign withheld it, and put it into a later one"},
	session.StageAbsent:     {"it is listed in a rescue wave and needs no rescue", "nothing to do"},
}
