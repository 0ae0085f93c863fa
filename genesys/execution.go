package genesys

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/headgate/headgate"
)

// LaunchRequest is the body of a launch.
type LaunchRequest struct {
	// FlowID is the flow's id. Required.
	FlowID string `json:"flowId"`
	// FlowVersion is the version to execute. "" is the published one.
	FlowVersion string `json:"flowVersion,omitempty"`
	// InputData are the flow's input variables, by names such as
	// "Flow.customer". Nil is none.
	InputData map[string]any `json:"inputData,omitempty"`
	// Name is a label of the caller's, shown beside the execution. The
	// platform cannot look executions up by it. "" is none.
	Name string `json:"name,omitempty"`
}

// Status is how an execution stands.
type Status string

// The published values of [Status]. Any other counts as still running.
const (
	StatusUnknown    Status = "UNKNOWN"
	StatusRunning    Status = "RUNNING"
	StatusCompleted  Status = "COMPLETED"
	StatusFailed     Status = "FAILED"
	StatusError      Status = "ERROR"
	StatusTerminated Status = "TERMINATED"
)

// Ended reports whether s is an end, good or bad.
func (s Status) Ended() bool {
	switch s {
	case StatusCompleted, StatusFailed, StatusError, StatusTerminated:
		return true
	}
	return false
}

// Execution is one execution that was launched.
type Execution struct {
	// ID is the only handle on the execution.
	ID string
	// Name is the label that the launch gave.
	Name string
	// Status is how it stands; StatusUnknown after a launch.
	Status Status
	// Output is the flow's outputData as JSON, if it has come to its end.
	Output json.RawMessage
	// ErrorInfo is what the platform says went wrong, flowErrorInfo; nil if
	// it does not say.
	ErrorInfo *ErrorInfo
	// Raw is the whole answer.
	Raw json.RawMessage
	// CorrelationID is what the platform's support asks for.
	CorrelationID string
	// Tries is what it took to learn this.
	Tries headgate.Tries
}

// ErrorInfo says why an execution failed.
type ErrorInfo struct {
	Code    string `json:"code"`
	Message string `json:"message"`
}

// FlowError says that an execution ended in another way than COMPLETED.
type FlowError struct {
	// ID and Status are those of the execution.
	ID     string
	Status Status
	// Info is what the platform says went wrong, or nil.
	Info *ErrorInfo
}

// Error says how it ended, and why if that is known.
func (e *FlowError) Error() string {
	s := fmt.Sprintf("execution %s ended as %s", e.ID, e.Status)
	if e.Info != nil && e.Info.Message != "" {
		s += ": " + e.Info.Message
	}
	if e.Info != nil && e.Info.Code != "" {
		s += " [" + e.Info.Code + "]"
	}
	return s
}

// Err returns a *[FlowError] if the execution has ended in another way than
// COMPLETED, else nil.
func (e *Execution) Err() error {
	if !e.Status.Ended() || e.Status == StatusCompleted {
		return nil
	}
	return &FlowError{ID: e.ID, Status: e.Status, Info: e.ErrorInfo}
}

// ParseLaunch reads the answer to a launch. An error says that the answer names
// no execution, although the launch has succeeded; the Execution is never nil.
func ParseLaunch(body []byte) (*Execution, error) {
	e, err := parseExecution(body)
	e.Status = StatusUnknown
	if err != nil {
		return e, fmt.Errorf("launched, but the answer does not say what: %w", err)
	}
	return e, nil
}

// ParseStatus reads the answer to a status poll. A status that it does not know
// is kept as it is, one that is missing is StatusUnknown. The Execution is never
// nil.
func ParseStatus(body []byte) (*Execution, error) {
	e, err := parseExecution(body)
	if err != nil {
		return e, fmt.Errorf("reading the execution's status: %w", err)
	}
	return e, nil
}

func parseExecution(body []byte) (*Execution, error) {
	var answer struct {
		ID            string          `json:"id"`
		Name          string          `json:"name"`
		Status        string          `json:"status"`
		OutputData    json.RawMessage `json:"outputData"`
		FlowErrorInfo *ErrorInfo      `json:"flowErrorInfo"`
	}
	e := &Execution{Status: StatusUnknown}
	if err := unmarshal(body, &answer); err != nil {
		return e, err
	}
	e.Raw = body
	e.ID = clean(answer.ID)
	e.Name = clean(answer.Name)
	if s := clean(strings.ToUpper(answer.Status)); s != "" {
		e.Status = Status(s)
	}
	if len(answer.OutputData) > 0 && string(answer.OutputData) != "null" {
		e.Output = answer.OutputData
	}
	if info := answer.FlowErrorInfo; info != nil {
		e.ErrorInfo = &ErrorInfo{Code: clean(info.Code), Message: clean(info.Message)}
	}
	if e.ID == "" {
		return e, errors.New("the answer has no id")
	}
	return e, nil
}
