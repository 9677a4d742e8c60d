package api

import (
	pb "github.com/sower-fuota/sower/engine/api/sowerv1"
	"github.com/sower-fuota/sower/engine/campaign"
	"github.com/sower-fuota/sower/engine/session"
)

// ExplainStage returns what is said of a stage.
func ExplainStage(s session.Stage) (happening, next string) {
	return states[s].Happening, states[s].Next
}

// ExplainDevice explains a device of a campaign that runs.
func ExplainDevice(d session.Device) *pb.ExplainResponse {
	return explained{device: d, progress: session.Progress{Phase: session.PhaseCollect}, header: campaign.State{Phase: campaign.PhaseRunning}}.explain()
}

// FromHere reports whether metrics may be read without a token.
var FromHere = fromHere

// Fragments is fragments, for tests.
var Fragments = fragments
