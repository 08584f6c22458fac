package e2e_test

import "testing"

func TestExampleRunsWithAnOperatorsEnvironmentFile(t *testing.T) {
	h := start(t, setup{example: true, public: true})
	ref := h.appview.Serve(t, h.alice) + "/alice.test/image:v1"
	image := newImage(t, 1000)
	if err := crane.pushImage(t, h, image, ref); err != nil {
		t.Fatal(err)
	}
	if err := oras.pullImage(t, h, h.appview.Serve(t, nil)+"/alice.test/image:v1", image); err != nil {
		t.Error(err)
	}
}
