; What long loops call now and then, as the `poll` of their context: it runs Python's signal handlers, and notes a failure where one of
; them raises something, such as KeyboardInterrupt, which `sg_raise` hands to Python when the unit has returned.
;
; Only Python's main thread runs handlers, so this is quick in others. It takes the GIL when 50 ms have passed since the last time: that
; may mean to wait for it. All of the state here is the main thread's.

@thread = internal global i64 0  ; the main one, 0 for none
@clock = internal global i32 0  ; a monotonic one
@last = internal global i64 0  ; when it last took the GIL, in milliseconds
@kind = internal global ptr null  ; the exception that nobody has asked for yet
@value = internal global ptr null
@trace = internal global ptr null

declare i64 @PyThread_get_thread_ident()
declare i32 @PyGILState_Ensure()
declare void @PyGILState_Release(i32)
declare i32 @PyErr_CheckSignals()
declare void @PyErr_Fetch(ptr, ptr, ptr)
declare void @PyErr_Restore(ptr, ptr, ptr)
declare i32 @clock_gettime(i32, ptr)

; Say which thread is the main one, and what to read the time from.
define void @sg_start(i64 %thread, i32 %clock) {
entry:
  store i64 %thread, ptr @thread
  store i32 %clock, ptr @clock
  ret void
}

define void @sg_poll(ptr %context) {
entry:
  %time = alloca [2 x i64]
  %noted = load i64, ptr %context
  %well = icmp eq i64 %noted, 0
  br i1 %well, label %who, label %done
who:
  %here = call i64 @PyThread_get_thread_ident()
  %main = load i64, ptr @thread
  %is_main = icmp eq i64 %here, %main
  br i1 %is_main, label %when, label %done
when:
  %clock = load i32, ptr @clock
  call i32 @clock_gettime(i32 %clock, ptr %time)
  %seconds = load i64, ptr %time
  %nanoseconds_at = getelementptr i64, ptr %time, i64 1
  %nanoseconds = load i64, ptr %nanoseconds_at
  %whole = mul i64 %seconds, 1000
  %rest = sdiv i64 %nanoseconds, 1000000
  %now = add i64 %whole, %rest
  %before = load i64, ptr @last
  %passed = sub i64 %now, %before
  %too_soon = icmp ult i64 %passed, 50
  br i1 %too_soon, label %done, label %ask
ask:
  %state = call i32 @PyGILState_Ensure()
  store i64 %now, ptr @last  ; a handler may run other loops: they have no need to ask again
  %raised = call i32 @PyErr_CheckSignals()
  %goes_on = icmp eq i32 %raised, 0
  br i1 %goes_on, label %release, label %keep
keep:
  call void @PyErr_Fetch(ptr @kind, ptr @value, ptr @trace)
  store i64 4, ptr %context  ; INTERRUPTED
  br label %release
release:
  call void @PyGILState_Release(i32 %state)
  br label %done
done:
  ret void
}

; Raise, with the GIL held, what a handler raised.
define void @sg_raise() {
entry:
  %kind = load ptr, ptr @kind
  %value = load ptr, ptr @value
  %trace = load ptr, ptr @trace
  store ptr null, ptr @kind
  store ptr null, ptr @value
  store ptr null, ptr @trace
  call void @PyErr_Restore(ptr %kind, ptr %value, ptr %trace)
  ret void
}
