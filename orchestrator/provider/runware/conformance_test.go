package runware_test

import (
	"testing"

	"github.com/genstream/genstream/orchestrator/provider"
	"github.com/genstream/genstream/orchestrator/provider/providertest"
	"github.com/genstream/genstream/orchestrator/provider/runware"
	"github.com/genstream/genstream/orchestrator/provider/sim"
)

func TestConformance(t *testing.T) {
	providertest.Run(t, func(t *testing.T, cfg sim.Config) (provider.Provider, *sim.Server) {
		s, err := sim.New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		return runware.New(runware.Config{
			Name: "simulated", BaseURL: "http://sim.test/v1", Key: cfg.Key,
			Transport: providertest.Transport(s), SpoolDir: t.TempDir(),
		}), s
	})
}
