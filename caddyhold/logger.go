package caddyhold

import (
	"slices"
	"sync/atomic"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// logSwitch is the logging core of what outlives a configuration: each configuration has
// loggers of its own and closes them when it ends, so that lasting state must write to
// whichever is current.
type logSwitch struct {
	current *atomic.Pointer[zap.Logger]
	fields  []zapcore.Field
}

func newLogSwitch(first *zap.Logger) *logSwitch {
	s := &logSwitch{current: new(atomic.Pointer[zap.Logger])}
	s.set(first)
	return s
}

func (s *logSwitch) logger() *zap.Logger     { return zap.New(s) }
func (s *logSwitch) set(current *zap.Logger) { s.current.Store(current) }
func (s *logSwitch) core() zapcore.Core      { return s.current.Load().Core() }

// Enabled implements zapcore.Core.
func (s *logSwitch) Enabled(level zapcore.Level) bool { return s.core().Enabled(level) }

// With implements zapcore.Core.
func (s *logSwitch) With(fields []zapcore.Field) zapcore.Core {
	return &logSwitch{current: s.current, fields: append(slices.Clip(s.fields), fields...)}
}

// Check implements zapcore.Core.
func (s *logSwitch) Check(e zapcore.Entry, ce *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if s.Enabled(e.Level) {
		return ce.AddCore(e, s)
	}
	return ce
}

// Write implements zapcore.Core. It asks the current core anew, which may sample.
func (s *logSwitch) Write(e zapcore.Entry, fields []zapcore.Field) error {
	logger := s.current.Load()
	e.LoggerName = logger.Name()
	if ce := logger.Core().Check(e, nil); ce != nil {
		ce.Write(append(slices.Clip(s.fields), fields...)...)
	}
	return nil
}

// Sync implements zapcore.Core.
func (s *logSwitch) Sync() error { return s.core().Sync() }

// Interface guard
var _ zapcore.Core = (*logSwitch)(nil)
