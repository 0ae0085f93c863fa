package contender

import (
	"fmt"
	"net/http"

	"github.com/headgate/headgate"
	"github.com/headgate/headgate/genesys"
)

// headgate plays three times: told what the documentation says, told nothing,
// and told something wrong. It is used as its README says, a Transport in an
// http.Client, with the reader for the platform's answers from package genesys,
// so that it hears which limit refused. Delivery is the default, at most once.
// Several processes are each told the whole limit.
var (
	headgateKnown = Contender{
		ID: "headgate", Title: "headgate", Module: "github.com/headgate/headgate", Knows: TheLimit,
		About: "told what the documentation says",
		New:   newHeadgate,
	}
	headgateLearn = Contender{
		ID: "headgate-learn", Title: "headgate, told nothing", Module: "github.com/headgate/headgate",
		About: "told no rate and no burst",
		New:   newHeadgate,
	}
	headgateWrong = Contender{
		ID: "headgate-wrong", Title: "headgate, told wrong", Module: "github.com/headgate/headgate", Knows: SomeFiction,
		About: "told a limit that is not the server's",
		New:   newHeadgate,
	}
)

func newHeadgate(s Setup) (Client, error) {
	limits, err := headgateLimits(s)
	if err != nil {
		return nil, err
	}
	return plain{&http.Client{Transport: &headgate.Transport{
		Base:   s.Base,
		Limits: limits,
		Read:   genesys.ReadAnswer,
	}}}, nil
}

// headgateLimits is what a Transport is told.
func headgateLimits(s Setup) ([]headgate.Limit, error) {
	l := headgate.Learn(s.Name)
	if s.Told != nil {
		l = headgate.Limit{Name: s.Name, Rate: s.Told.Rate, Burst: s.Told.Burst, Max: s.Told.Max, Window: s.Told.Window}
	}
	if err := l.Per.UnmarshalText([]byte(s.Per)); err != nil {
		return nil, fmt.Errorf("per: %w", err)
	}
	return []headgate.Limit{l}, nil
}
