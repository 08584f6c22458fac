package blobs

import "context"

// Round does once what Run does, and returns when it is done.
func (s *Service) Round(ctx context.Context) { s.round(ctx) }
