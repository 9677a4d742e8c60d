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
	return explain(d, session.Spec{}, session.Progress{Phase: session.PhaseCollect}, campaign.State{Phase: campaign.PhaseRunning})
}

// FromHere reports whether metrics may be read without a token.
var FromHere = fromHere
