; The entry of traced functions: from a Python call to the machine code of a unit and back, without running any Python.
;
; `sg_call` is the vectorcall function of every traced function. It walks the forms of call that the function is compiled for:
; where the arguments look like those of a form, and nothing the traced function read from outside has changed, it hands the
; arrays' memory to the unit, and makes the results. Anything else goes to the method `_slow_call`, which knows every case.
; `runtime/fast_call.py` compiles this file, checks what it assumes of the interpreter and of NumPy, and lays the tables out.
;
; Who holds what. The caller holds the arguments, so what stands in tuples is held, too; the tables hold what they name. What a list or
; a dict hands out gets a reference until the call is over: the `__eq__` of a key, a probe, or another thread may take it out of there.
; Any of these may also call this function anew, or clear it: a state counts the calls inside of it and is let alone until they are out.
;
; A name ending in `_at` is the place of what the name says.

%State = type {
  ptr,  ;  0 next: the next form of call, or null
  i64,  ;  1 positional arguments
  i64,  ;  2 keyword arguments
  ptr,  ;  3 their names, objects
  ptr,  ;  4 pattern of the arguments: words that @match reads
  ptr,  ;  5 probes: words that @unchanged reads, four each
  i64,  ;  6 number of probes
  ptr,  ;  7 the argument table, filled in but for inputs and outputs
  i64,  ;  8 length of that table
  i64,  ;  9 number of inputs
  i64,  ; 10 number of outputs, at the end of the table
  ptr,  ; 11 outputs: words that @allocate reads, six each
  ptr,  ; 12 shape of the result: words that @build reads
  ptr,  ; 13 what makes the result of a tuple, or null: an object
  ptr,  ; 14 forward
  ptr,  ; 15 backward, or null
  i64,  ; 16 bytes of workspace
  ptr,  ; 17 a block of workspace that no call uses, or null
  i64,  ; 18 whether the unit takes long enough to release the GIL
  ptr,  ; 19 called with the failure that the context holds, as bytes: an object
  ptr,  ; 20 the context, as it is at the start: eight words
  i64,  ; 21 the number of the argument `out`, whose arrays receive the results; -1 where new arrays do
  ptr,  ; 22 the bytes behind each pointer of the table
  i64,  ; 23 how many items the lists and dicts among the arguments have
  i64   ; 24 how many calls are inside of this state
}

; What @match finds: the argument table, room for the numbers among the inputs, and what it took a reference of, with their number.
%Frame = type { ptr, ptr, ptr, i64 }

@numpy = internal global ptr null         ; NumPy's C API
@array_type = internal global ptr null    ; numpy.ndarray
@tracing = internal global ptr null       ; how many traces are under way: a word elsewhere
@slow_name = internal global ptr null     ; "_slow_call"
@result_memory = internal global ptr null ; what returns the memory of very large results

@PyFloat_Type = external global i8
@PyLong_Type = external global i8
@PyTuple_Type = external global i8
@PyList_Type = external global i8
@PyDict_Type = external global i8
@_Py_NoneStruct = external global i8
@_Py_TrueStruct = external global i8
@_Py_FalseStruct = external global i8
@PyExc_Exception = external global ptr

declare void @Py_IncRef(ptr)
declare void @Py_DecRef(ptr)
declare void @PyErr_Clear()
declare ptr @PyErr_Occurred()
declare i32 @PyErr_ExceptionMatches(ptr)
declare ptr @PyErr_NoMemory()
declare double @PyFloat_AsDouble(ptr)
declare i64 @PyLong_AsLongLongAndOverflow(ptr, ptr)
declare ptr @PyBytes_FromStringAndSize(ptr, i64)
declare i64 @PyTuple_Size(ptr)
declare ptr @PyTuple_GetItem(ptr, i64)
declare ptr @PyTuple_New(i64)
declare i32 @PyTuple_SetItem(ptr, i64, ptr)
declare i64 @PyList_Size(ptr)
declare ptr @PyList_GetItem(ptr, i64)
declare ptr @PyList_New(i64)
declare i32 @PyList_SetItem(ptr, i64, ptr)
declare i64 @PyDict_Size(ptr)
declare ptr @PyDict_New()
declare i32 @PyDict_SetItem(ptr, ptr, ptr)
declare ptr @PyDict_GetItemWithError(ptr, ptr)
declare ptr @PyObject_GetAttr(ptr, ptr)
declare ptr @PyObject_CallNoArgs(ptr)
declare ptr @PyObject_CallOneArg(ptr, ptr)
declare ptr @PyObject_Vectorcall(ptr, ptr, i64, ptr)
declare ptr @PyEval_SaveThread()
declare void @PyEval_RestoreThread(ptr)
declare ptr @PyMem_RawMalloc(i64)
declare void @PyMem_RawFree(ptr)
declare void @llvm.memcpy.p0.p0.i64(ptr, ptr, i64, i1)

; Note what this process is made of, once.
define void @sg_install(ptr %numpy, ptr %array_type, ptr %tracing, ptr %slow_name, ptr %result_memory) {
  store ptr %numpy, ptr @numpy
  store ptr %array_type, ptr @array_type
  store ptr %tracing, ptr @tracing
  store ptr %slow_name, ptr @slow_name
  store ptr %result_memory, ptr @result_memory
  ret void
}

; A function of NumPy's C API by its number.
define internal ptr @numpy_function(i64 %number) alwaysinline {
  %table = load ptr, ptr @numpy
  %at = getelementptr ptr, ptr %table, i64 %number
  %function = load ptr, ptr %at
  ret ptr %function
}

define internal ptr @type_of(ptr %object) alwaysinline {
  %at = getelementptr i8, ptr %object, i64 8
  %type = load ptr, ptr %at
  ret ptr %type
}

define internal ptr @data_of(ptr %array) alwaysinline {
  %at = getelementptr i8, ptr %array, i64 16
  %data = load ptr, ptr %at
  ret ptr %data
}

; The word at a place of a pattern.
define internal i64 @word(ptr %words, i64 %place) alwaysinline {
  %at = getelementptr i64, ptr %words, i64 %place
  %word = load i64, ptr %at
  ret i64 %word
}

define internal ptr @object(ptr %words, i64 %place) alwaysinline {
  %at = getelementptr ptr, ptr %words, i64 %place
  %object = load ptr, ptr %at
  ret ptr %object
}

; Whether `object` is a numpy.ndarray of a dtype and a rank that has all of some flags.
define internal i1 @is_array(ptr %object, ptr %dtype, i64 %rank, i64 %wanted_flags) alwaysinline {
entry:
  %type = call ptr @type_of(ptr %object)
  %wanted = load ptr, ptr @array_type
  %is_array = icmp eq ptr %type, %wanted
  br i1 %is_array, label %array, label %no
array:
  %rank_at = getelementptr i8, ptr %object, i64 24
  %found_rank = load i32, ptr %rank_at
  %wide_rank = sext i32 %found_rank to i64
  %dtype_at = getelementptr i8, ptr %object, i64 56
  %found_dtype = load ptr, ptr %dtype_at
  %flags_at = getelementptr i8, ptr %object, i64 64
  %found_flags = load i32, ptr %flags_at
  %flags = zext i32 %found_flags to i64
  %good_flags = and i64 %flags, %wanted_flags
  %same_rank = icmp eq i64 %wide_rank, %rank
  %same_dtype = icmp eq ptr %found_dtype, %dtype
  %has_flags = icmp eq i64 %good_flags, %wanted_flags
  %both = and i1 %same_rank, %same_dtype
  %all = and i1 %both, %has_flags
  ret i1 %all
no:
  ret i1 false
}

; Compare an argument with its pattern and enter the memory of its arrays into the table.
; Returns the place behind the pattern, null where the argument is something else or, with an exception set, where comparing raised.
;
;   0 array   slot, dtype, rank, flags, extents ...
;   1 number  slot, dtype, type of the NumPy scalar, whether True and False will do: one of these, or an array of rank 0
;   2 float   slot
;   3 int     slot
;   4 same    object
;   5 tuple   length, then the patterns of the items
;   6 list    length, then the patterns of the items
;   7 dict    length, then for each item its key and its pattern
define internal ptr @match(ptr %object, ptr %pattern, ptr %frame) {
entry:
  %kind = load i64, ptr %pattern
  %first = call i64 @word(ptr %pattern, i64 1)
  %second = call ptr @object(ptr %pattern, i64 2)
  %type = call ptr @type_of(ptr %object)
  %table = load ptr, ptr %frame
  %slot_at = getelementptr ptr, ptr %table, i64 %first
  %scratch_at = getelementptr %Frame, ptr %frame, i64 0, i32 1
  %scratch = load ptr, ptr %scratch_at
  %place = mul i64 %first, 16
  %number_at = getelementptr i8, ptr %scratch, i64 %place
  switch i64 %kind, label %no [ i64 0, label %array i64 1, label %number i64 2, label %float i64 3, label %int
                                i64 4, label %same i64 5, label %tuple i64 6, label %list i64 7, label %dict ]

array:
  %rank = call i64 @word(ptr %pattern, i64 3)
  %flags = call i64 @word(ptr %pattern, i64 4)
  %is_array = call i1 @is_array(ptr %object, ptr %second, i64 %rank, i64 %flags)
  br i1 %is_array, label %extents, label %no
extents:
  %extents_at = getelementptr i8, ptr %object, i64 32
  %extents_of = load ptr, ptr %extents_at
  %wanted = getelementptr i64, ptr %pattern, i64 5
  br label %extent
extent:
  %axis = phi i64 [ 0, %extents ], [ %next_axis, %same_extent ]
  %last_axis = icmp eq i64 %axis, %rank
  br i1 %last_axis, label %found, label %compare
compare:
  %extent_here = call i64 @word(ptr %extents_of, i64 %axis)
  %extent_there = call i64 @word(ptr %wanted, i64 %axis)
  %equal = icmp eq i64 %extent_here, %extent_there
  br i1 %equal, label %same_extent, label %no
same_extent:
  %next_axis = add i64 %axis, 1
  br label %extent
found:
  %after_array = getelementptr i64, ptr %wanted, i64 %rank
  br label %take_array
take_array:
  %after = phi ptr [ %after_array, %found ], [ %after_number, %array_of_rank_0 ]
  %data = call ptr @data_of(ptr %object)
  store ptr %data, ptr %slot_at
  ret ptr %after

number:
  %scalar_type = call ptr @object(ptr %pattern, i64 3)
  %after_number = getelementptr i64, ptr %pattern, i64 5
  %is_scalar = icmp eq ptr %type, %scalar_type
  br i1 %is_scalar, label %scalar, label %no_scalar
scalar:
  %to_c = call ptr @numpy_function(i64 62)  ; PyArray_ScalarAsCtype
  call void %to_c(ptr %object, ptr %number_at)
  store ptr %number_at, ptr %slot_at
  ret ptr %after_number
no_scalar:
  %is_rank_0 = call i1 @is_array(ptr %object, ptr %second, i64 0, i64 256)  ; NPY_ARRAY_ALIGNED
  br i1 %is_rank_0, label %array_of_rank_0, label %maybe_bool
array_of_rank_0:
  br label %take_array
maybe_bool:
  %takes_bool = call i64 @word(ptr %pattern, i64 4)
  %is_true = icmp eq ptr %object, @_Py_TrueStruct
  %is_false = icmp eq ptr %object, @_Py_FalseStruct
  %is_bool = or i1 %is_true, %is_false
  %wants_bool = icmp ne i64 %takes_bool, 0
  %good_bool = and i1 %is_bool, %wants_bool
  br i1 %good_bool, label %bool, label %no
bool:
  %byte = zext i1 %is_true to i8
  store i8 %byte, ptr %number_at
  store ptr %number_at, ptr %slot_at
  ret ptr %after_number

float:
  %is_float = icmp eq ptr %type, @PyFloat_Type
  br i1 %is_float, label %take_float, label %no
take_float:
  %double = call double @PyFloat_AsDouble(ptr %object)
  store double %double, ptr %number_at
  store ptr %number_at, ptr %slot_at
  %after_float = getelementptr i64, ptr %pattern, i64 2
  ret ptr %after_float

int:
  %is_int = icmp eq ptr %type, @PyLong_Type
  br i1 %is_int, label %take_int, label %no
take_int:
  %overflow = alloca i32
  %integer = call i64 @PyLong_AsLongLongAndOverflow(ptr %object, ptr %overflow)
  %overflows = load i32, ptr %overflow
  %fits = icmp eq i32 %overflows, 0
  br i1 %fits, label %store_int, label %no
store_int:
  store i64 %integer, ptr %number_at
  store ptr %number_at, ptr %slot_at
  %after_int = getelementptr i64, ptr %pattern, i64 2
  ret ptr %after_int

same:
  %wanted_object = inttoptr i64 %first to ptr
  %is_same = icmp eq ptr %object, %wanted_object
  br i1 %is_same, label %take_same, label %no
take_same:
  %after_same = getelementptr i64, ptr %pattern, i64 2
  ret ptr %after_same

tuple:
  %is_tuple = icmp eq ptr %type, @PyTuple_Type
  br i1 %is_tuple, label %tuple_length, label %no
tuple_length:
  %tuple_size = call i64 @PyTuple_Size(ptr %object)
  br label %length
list:
  %is_list = icmp eq ptr %type, @PyList_Type
  br i1 %is_list, label %list_length, label %no
list_length:
  %list_size = call i64 @PyList_Size(ptr %object)
  br label %length
dict:
  %is_dict = icmp eq ptr %type, @PyDict_Type
  br i1 %is_dict, label %dict_length, label %no
dict_length:
  %dict_size = call i64 @PyDict_Size(ptr %object)
  br label %length

length:
  %size = phi i64 [ %tuple_size, %tuple_length ], [ %list_size, %list_length ], [ %dict_size, %dict_length ]
  %same_length = icmp eq i64 %size, %first
  %items = getelementptr i64, ptr %pattern, i64 2
  br i1 %same_length, label %item, label %no
item:
  %number_of = phi i64 [ 0, %length ], [ %next_number, %matched ]
  %cursor = phi ptr [ %items, %length ], [ %next_cursor, %matched ]
  %last_item = icmp eq i64 %number_of, %first
  br i1 %last_item, label %end, label %pick
pick:
  switch i64 %kind, label %by_key [ i64 5, label %of_tuple i64 6, label %of_list ]
of_tuple:
  %from_tuple = call ptr @PyTuple_GetItem(ptr %object, i64 %number_of)
  br label %picked
of_list:
  %from_list = call ptr @PyList_GetItem(ptr %object, i64 %number_of)
  br label %picked
by_key:
  %key = load ptr, ptr %cursor
  %from_dict = call ptr @PyDict_GetItemWithError(ptr %object, ptr %key)
  %behind_key = getelementptr i64, ptr %cursor, i64 1
  br label %picked
picked:
  %inner = phi ptr [ %from_tuple, %of_tuple ], [ %from_list, %of_list ], [ %from_dict, %by_key ]
  %inner_pattern = phi ptr [ %cursor, %of_tuple ], [ %cursor, %of_list ], [ %behind_key, %by_key ]
  %absent = icmp eq ptr %inner, null
  br i1 %absent, label %no, label %is_it_safe
is_it_safe:
  %in_tuple = icmp eq i64 %kind, 5
  br i1 %in_tuple, label %descend, label %hold
hold:
  call void @Py_IncRef(ptr %inner)
  %held_at = getelementptr %Frame, ptr %frame, i64 0, i32 2
  %held = load ptr, ptr %held_at
  %count_at = getelementptr %Frame, ptr %frame, i64 0, i32 3
  %count = load i64, ptr %count_at
  %holder = getelementptr ptr, ptr %held, i64 %count
  store ptr %inner, ptr %holder
  %more = add i64 %count, 1
  store i64 %more, ptr %count_at
  br label %descend
descend:
  %next_cursor = call ptr @match(ptr %inner, ptr %inner_pattern, ptr %frame)
  %differs = icmp eq ptr %next_cursor, null
  br i1 %differs, label %no, label %matched
matched:
  %next_number = add i64 %number_of, 1
  br label %item
end:
  ret ptr %cursor
no:
  ret ptr null
}

; Whether everything that the traced function read from outside is what it was; false, with an exception set, where looking raised.
;
;   0 entry  dict, key, expected value (null: not there)
;   1 field  object, offset, expected value
;   2 call   function, -, expected result
define internal i1 @unchanged(ptr %probes, i64 %count) {
entry:
  br label %next
next:
  %number = phi i64 [ 0, %entry ], [ %following, %same ]
  %probe = phi ptr [ %probes, %entry ], [ %next_probe, %same ]
  %end = icmp eq i64 %number, %count
  br i1 %end, label %yes, label %look
look:
  %kind = load i64, ptr %probe
  %holder = call ptr @object(ptr %probe, i64 1)
  %key = call ptr @object(ptr %probe, i64 2)
  %expected = call ptr @object(ptr %probe, i64 3)
  switch i64 %kind, label %result [ i64 0, label %entry_of i64 1, label %field ]
entry_of:
  %value = call ptr @PyDict_GetItemWithError(ptr %holder, ptr %key)
  %has_value = icmp ne ptr %value, null
  br i1 %has_value, label %compare, label %no_value
no_value:
  %error = call ptr @PyErr_Occurred()
  %is_absent = icmp eq ptr %error, null
  br i1 %is_absent, label %compare, label %no
field:
  %offset = ptrtoint ptr %key to i64
  %content_at = getelementptr i8, ptr %holder, i64 %offset
  %content = load ptr, ptr %content_at
  br label %compare
compare:
  %found = phi ptr [ %value, %entry_of ], [ null, %no_value ], [ %content, %field ]
  %is_same = icmp eq ptr %found, %expected
  br i1 %is_same, label %same, label %no
result:
  %returned = call ptr @PyObject_CallNoArgs(ptr %holder)
  %raised = icmp eq ptr %returned, null
  br i1 %raised, label %no, label %release
release:
  call void @Py_DecRef(ptr %returned)
  %is_expected = icmp eq ptr %returned, %expected
  br i1 %is_expected, label %same, label %no
same:
  %following = add i64 %number, 1
  %next_probe = getelementptr i64, ptr %probe, i64 4
  br label %next
yes:
  ret i1 true
no:
  ret i1 false
}

; An array whose memory is not written yet. Where its bytes are given, it begins at a cache line, within the memory of an array that
; it holds. Very many bytes are also given as an object, for which `result_memory.py` returns such an array.
define internal ptr @new_array(i32 %rank, ptr %extents, i32 %kind, i64 %bytes, ptr %many) {
entry:
  %room_at = alloca i64
  %type = load ptr, ptr @array_type
  %new = call ptr @numpy_function(i64 93)  ; PyArray_New
  %is_large = icmp ne i64 %bytes, 0
  br i1 %is_large, label %large, label %small
small:
  %array = call ptr %new(ptr %type, i32 %rank, ptr %extents, i32 %kind, ptr null, ptr null, i32 0, i32 0, ptr null)
  ret ptr %array
large:
  %is_ordinary = icmp eq ptr %many, null
  br i1 %is_ordinary, label %ordinary, label %kept
ordinary:
  %room = add i64 %bytes, 64
  store i64 %room, ptr %room_at
  %fresh = call ptr %new(ptr %type, i32 1, ptr %room_at, i32 2, ptr null, ptr null, i32 0, i32 0, ptr null)  ; of uint8
  br label %look
kept:
  %function = load ptr, ptr @result_memory
  %found = call ptr @PyObject_CallOneArg(ptr %function, ptr %many)
  br label %look
look:
  %owner = phi ptr [ %fresh, %ordinary ], [ %found, %kept ]
  %has_none = icmp eq ptr %owner, null
  br i1 %has_none, label %none, label %within
within:
  %memory = call ptr @data_of(ptr %owner)
  %address = ptrtoint ptr %memory to i64
  %negative = sub i64 0, %address
  %skipped = and i64 %negative, 63
  %data = getelementptr i8, ptr %memory, i64 %skipped
  ; 1281: contiguous, aligned, writeable
  %view = call ptr %new(ptr %type, i32 %rank, ptr %extents, i32 %kind, ptr null, ptr %data, i32 0, i32 1281, ptr null)
  %has_no_view = icmp eq ptr %view, null
  br i1 %has_no_view, label %drop, label %hold
hold:
  %set_base = call ptr @numpy_function(i64 282)  ; PyArray_SetBaseObject, which takes over the reference
  %code = call i32 %set_base(ptr %view, ptr %owner)
  %is_held = icmp eq i32 %code, 0
  br i1 %is_held, label %done, label %drop_view
done:
  ret ptr %view
drop_view:
  call void @Py_DecRef(ptr %view)
  br label %none
drop:
  call void @Py_DecRef(ptr %owner)
  br label %none
none:
  ret ptr null
}

; Make the arrays of the outputs and enter their memory into the table; a number is written to `scratch` and becomes an object later.
; Returns whether there was memory enough.
;
;   rank, extents, NumPy's number of the dtype, dtype, bytes of what is to begin at a cache line or 0, these as an object if they are
;   so many that `result_memory.py` has the memory, or null
define internal i1 @allocate(ptr %outputs, i64 %count, ptr %slots, ptr %objects, ptr %scratch) {
entry:
  br label %next
next:
  %number = phi i64 [ 0, %entry ], [ %following, %entered ]
  %end = icmp eq i64 %number, %count
  br i1 %end, label %yes, label %look
look:
  %place = mul i64 %number, 6
  %output = getelementptr i64, ptr %outputs, i64 %place
  %rank = load i64, ptr %output
  %object_at = getelementptr ptr, ptr %objects, i64 %number
  %is_number = icmp eq i64 %rank, 0
  br i1 %is_number, label %scalar, label %array
scalar:
  %bytes = mul i64 %number, 16
  %number_at = getelementptr i8, ptr %scratch, i64 %bytes
  br label %entered
array:
  %short_rank = trunc i64 %rank to i32
  %extents = call ptr @object(ptr %output, i64 1)
  %kind = call i64 @word(ptr %output, i64 2)
  %short_kind = trunc i64 %kind to i32
  %large = call i64 @word(ptr %output, i64 4)
  %many = call ptr @object(ptr %output, i64 5)
  %made = call ptr @new_array(i32 %short_rank, ptr %extents, i32 %short_kind, i64 %large, ptr %many)
  %failed = icmp eq ptr %made, null
  br i1 %failed, label %no, label %fill
fill:
  %data = call ptr @data_of(ptr %made)
  br label %entered
entered:
  %object = phi ptr [ null, %scalar ], [ %made, %fill ]
  %memory = phi ptr [ %number_at, %scalar ], [ %data, %fill ]
  store ptr %object, ptr %object_at
  %slot_at = getelementptr ptr, ptr %slots, i64 %number
  store ptr %memory, ptr %slot_at
  %following = add i64 %number, 1
  br label %next
yes:
  ret i1 true
no:
  ret i1 false
}

; Make the objects of the outputs that are numbers. Returns whether there was memory enough.
define internal i1 @wrap_numbers(ptr %outputs, i64 %count, ptr %slots, ptr %objects) {
entry:
  br label %next
next:
  %number = phi i64 [ 0, %entry ], [ %following, %entered ]
  %end = icmp eq i64 %number, %count
  br i1 %end, label %yes, label %look
look:
  %object_at = getelementptr ptr, ptr %objects, i64 %number
  %object = load ptr, ptr %object_at
  %has_object = icmp ne ptr %object, null
  br i1 %has_object, label %entered, label %wrap
wrap:
  %memory = call ptr @object(ptr %slots, i64 %number)
  %place = mul i64 %number, 6
  %output = getelementptr i64, ptr %outputs, i64 %place
  %dtype = call ptr @object(ptr %output, i64 3)
  %scalar = call ptr @numpy_function(i64 60)  ; PyArray_Scalar
  %made = call ptr %scalar(ptr %memory, ptr %dtype, ptr null)
  store ptr %made, ptr %object_at
  %failed = icmp eq ptr %made, null
  br i1 %failed, label %no, label %entered
entered:
  %following = add i64 %number, 1
  br label %next
yes:
  ret i1 true
no:
  ret i1 false
}

; Drop the references of an array of objects, which may be null.
define internal void @release_all(ptr %objects, i64 %count) {
entry:
  br label %next
next:
  %number = phi i64 [ 0, %entry ], [ %following, %release ]
  %end = icmp eq i64 %number, %count
  br i1 %end, label %done, label %release
release:
  %object = call ptr @object(ptr %objects, i64 %number)
  call void @Py_DecRef(ptr %object)
  %following = add i64 %number, 1
  br label %next
done:
  ret void
}

; Make one part of the result; the cursor moves behind its shape. Null, with an exception set, where memory ran out.
;
;   0 output  number
;   1 copy    number of an output that stands in the result before
;   2 tuple   length, then the items
;   3 list    length, then the items
;   4 dict    length, then for each item its key and its shape
;   5 same    object
define internal ptr @build(ptr %cursor, ptr %objects) {
entry:
  %shape = load ptr, ptr %cursor
  %kind = load i64, ptr %shape
  %first = call i64 @word(ptr %shape, i64 1)
  %behind = getelementptr i64, ptr %shape, i64 2
  store ptr %behind, ptr %cursor
  switch i64 %kind, label %constant [ i64 0, label %output i64 1, label %copy i64 2, label %tuple i64 3, label %list i64 4, label %dict ]
output:
  %object = call ptr @object(ptr %objects, i64 %first)
  call void @Py_IncRef(ptr %object)
  ret ptr %object
copy:
  %original = call ptr @object(ptr %objects, i64 %first)
  %new_copy = call ptr @numpy_function(i64 85)  ; PyArray_NewCopy
  %copied = call ptr %new_copy(ptr %original, i32 0)
  ret ptr %copied
constant:
  %same = inttoptr i64 %first to ptr
  call void @Py_IncRef(ptr %same)
  ret ptr %same
tuple:
  %new_tuple = call ptr @PyTuple_New(i64 %first)
  br label %made
list:
  %new_list = call ptr @PyList_New(i64 %first)
  br label %made
dict:
  %new_dict = call ptr @PyDict_New()
  br label %made
made:
  %whole = phi ptr [ %new_tuple, %tuple ], [ %new_list, %list ], [ %new_dict, %dict ]
  %failed = icmp eq ptr %whole, null
  br i1 %failed, label %no, label %next
next:
  %number = phi i64 [ 0, %made ], [ %following, %entered ]
  %end = icmp eq i64 %number, %first
  br i1 %end, label %done, label %key
key:
  %is_dict = icmp eq i64 %kind, 4
  %at = load ptr, ptr %cursor
  %key_here = load ptr, ptr %at
  %behind_key = getelementptr i64, ptr %at, i64 1
  %from = select i1 %is_dict, ptr %behind_key, ptr %at
  store ptr %from, ptr %cursor
  %item = call ptr @build(ptr %cursor, ptr %objects)
  %no_item = icmp eq ptr %item, null
  br i1 %no_item, label %drop, label %enter
enter:
  switch i64 %kind, label %into_dict [ i64 2, label %into_tuple i64 3, label %into_list ]
into_tuple:
  %code_tuple = call i32 @PyTuple_SetItem(ptr %whole, i64 %number, ptr %item)
  br label %entered
into_list:
  %code_list = call i32 @PyList_SetItem(ptr %whole, i64 %number, ptr %item)
  br label %entered
into_dict:
  %code_dict = call i32 @PyDict_SetItem(ptr %whole, ptr %key_here, ptr %item)
  call void @Py_DecRef(ptr %item)
  %not_entered = icmp ne i32 %code_dict, 0
  br i1 %not_entered, label %drop, label %entered
entered:
  %following = add i64 %number, 1
  br label %next
done:
  ret ptr %whole
drop:
  call void @Py_DecRef(ptr %whole)
  br label %no
no:
  ret ptr null
}

; Run the stages, without the GIL where they take long. Returns a failure code, 0 where there was none.
define internal i64 @run(ptr %state, ptr %table, ptr %workspace, ptr %context) {
entry:
  %forward_at = getelementptr %State, ptr %state, i64 0, i32 14
  %forward = load ptr, ptr %forward_at
  %backward_at = getelementptr %State, ptr %state, i64 0, i32 15
  %backward = load ptr, ptr %backward_at
  %long_at = getelementptr %State, ptr %state, i64 0, i32 18
  %long = load i64, ptr %long_at
  %is_long = icmp ne i64 %long, 0
  br i1 %is_long, label %leave, label %start
leave:
  %thread = call ptr @PyEval_SaveThread()
  br label %start
start:
  %saved = phi ptr [ null, %entry ], [ %thread, %leave ]
  %forward_code = call i64 %forward(ptr %table, ptr %workspace, ptr %context)
  %forward_failed = icmp ne i64 %forward_code, 0
  %no_backward = icmp eq ptr %backward, null
  %over = or i1 %forward_failed, %no_backward
  br i1 %over, label %finish, label %second
second:
  %backward_code = call i64 %backward(ptr %table, ptr %workspace, ptr %context)
  br label %finish
finish:
  %code = phi i64 [ %forward_code, %start ], [ %backward_code, %second ]
  br i1 %is_long, label %return, label %done
return:
  call void @PyEval_RestoreThread(ptr %saved)
  br label %done
done:
  ret i64 %code
}

; Whether the memory of each output has no byte in common with that of the inputs and the other outputs.
define internal i1 @apart(ptr %table, ptr %sizes, i64 %length, i64 %count) {
entry:
  %first = sub i64 %length, %count
  br label %output
output:
  %number = phi i64 [ %first, %entry ], [ %next_number, %checked ]
  %end = icmp eq i64 %number, %length
  br i1 %end, label %yes, label %range
range:
  %start = call i64 @word(ptr %table, i64 %number)
  %size = call i64 @word(ptr %sizes, i64 %number)
  %stop = add i64 %start, %size
  br label %other
other:
  %other_number = phi i64 [ 0, %range ], [ %following, %different ]
  %last = icmp eq i64 %other_number, %number
  br i1 %last, label %checked, label %compare
compare:
  %other_start = call i64 @word(ptr %table, i64 %other_number)
  %other_size = call i64 @word(ptr %sizes, i64 %other_number)
  %other_stop = add i64 %other_start, %other_size
  %begins = icmp ult i64 %start, %other_stop
  %ends = icmp ult i64 %other_start, %stop
  %overlaps = and i1 %begins, %ends
  br i1 %overlaps, label %no, label %different
different:
  %following = add i64 %other_number, 1
  br label %other
checked:
  %next_number = add i64 %number, 1
  br label %output
yes:
  ret i1 true
no:
  ret i1 false
}

; Compute the results for a filled frame: null with an exception set where that failed. `out` is null, or holds the arrays of the outputs.
; What @build cannot make comes back as a tuple, for @finish.
define internal ptr @compute(ptr %state, ptr %frame, ptr %out) {
entry:
  %table = load ptr, ptr %frame
  %length_at = getelementptr %State, ptr %state, i64 0, i32 8
  %length = load i64, ptr %length_at
  %count_at = getelementptr %State, ptr %state, i64 0, i32 10
  %count = load i64, ptr %count_at
  %outputs_at = getelementptr %State, ptr %state, i64 0, i32 11
  %outputs = load ptr, ptr %outputs_at
  %first_slot = sub i64 %length, %count
  %slots = getelementptr ptr, ptr %table, i64 %first_slot
  %objects = alloca ptr, i64 %count
  %object_bytes = mul i64 %count, 8
  call void @llvm.memset.p0.i64(ptr %objects, i8 0, i64 %object_bytes, i1 false)
  %scratch_bytes = mul i64 %count, 16
  %scratch = alloca i8, i64 %scratch_bytes, align 16
  %context = alloca i64, i64 8
  %context_at = getelementptr %State, ptr %state, i64 0, i32 20
  %context_start = load ptr, ptr %context_at
  call void @llvm.memcpy.p0.p0.i64(ptr %context, ptr %context_start, i64 64, i1 false)
  %makes_arrays = icmp eq ptr %out, null
  br i1 %makes_arrays, label %arrays, label %room
arrays:
  %allocated = call i1 @allocate(ptr %outputs, i64 %count, ptr %slots, ptr %objects, ptr %scratch)
  br i1 %allocated, label %room, label %failed

room:
  %bytes_at = getelementptr %State, ptr %state, i64 0, i32 16
  %bytes = load i64, ptr %bytes_at
  %spare_at = getelementptr %State, ptr %state, i64 0, i32 17
  %is_small = icmp ule i64 %bytes, 8192
  br i1 %is_small, label %on_stack, label %on_heap
on_stack:
  %stack = alloca i8, i64 %bytes, align 64
  br label %execute
on_heap:
  %spare = load ptr, ptr %spare_at
  store ptr null, ptr %spare_at
  %has_spare = icmp ne ptr %spare, null
  br i1 %has_spare, label %align, label %take
take:
  %with_margin = add i64 %bytes, 64
  %taken = call ptr @PyMem_RawMalloc(i64 %with_margin)
  %out_of_memory = icmp eq ptr %taken, null
  br i1 %out_of_memory, label %no_memory, label %align
align:
  %block = phi ptr [ %spare, %on_heap ], [ %taken, %take ]
  %address = ptrtoint ptr %block to i64
  %raised_address = add i64 %address, 63
  %aligned_address = and i64 %raised_address, -64
  %heap = inttoptr i64 %aligned_address to ptr
  br label %execute
execute:
  %workspace = phi ptr [ %stack, %on_stack ], [ %heap, %align ]
  %used_block = phi ptr [ null, %on_stack ], [ %block, %align ]
  %code = call i64 @run(ptr %state, ptr %table, ptr %workspace, ptr %context)
  %had_block = icmp ne ptr %used_block, null
  br i1 %had_block, label %give_back, label %judge
give_back:
  %spare_now = load ptr, ptr %spare_at
  %is_kept = icmp eq ptr %spare_now, null
  br i1 %is_kept, label %keep_block, label %free_block
keep_block:
  store ptr %used_block, ptr %spare_at
  br label %judge
free_block:
  call void @PyMem_RawFree(ptr %used_block)
  br label %judge

judge:
  %good = icmp eq i64 %code, 0
  br i1 %good, label %hand_over, label %report
report:
  %failure_at = getelementptr %State, ptr %state, i64 0, i32 19
  %on_failure = load ptr, ptr %failure_at
  %code_object = call ptr @PyBytes_FromStringAndSize(ptr %context, i64 24)  ; code, node, index
  %no_code = icmp eq ptr %code_object, null
  br i1 %no_code, label %failed, label %call_failure
call_failure:
  %never = call ptr @PyObject_CallOneArg(ptr %on_failure, ptr %code_object)
  call void @Py_DecRef(ptr %code_object)
  br label %failed

hand_over:
  br i1 %makes_arrays, label %wrap, label %same_arrays
same_arrays:
  call void @Py_IncRef(ptr %out)
  ret ptr %out
wrap:
  %wrapped = call i1 @wrap_numbers(ptr %outputs, i64 %count, ptr %slots, ptr %objects)
  br i1 %wrapped, label %assemble, label %failed
assemble:
  %cursor = alloca ptr
  %shape_at = getelementptr %State, ptr %state, i64 0, i32 12
  %shape = load ptr, ptr %shape_at
  store ptr %shape, ptr %cursor
  %result = call ptr @build(ptr %cursor, ptr %objects)
  call void @release_all(ptr %objects, i64 %count)
  ret ptr %result

no_memory:
  %ignored = call ptr @PyErr_NoMemory()
  br label %failed
failed:
  call void @release_all(ptr %objects, i64 %count)
  ret ptr null
}

declare void @llvm.memset.p0.i64(ptr, i8, i64, i1)

; Whether a call has the number of arguments and the keywords of a form, in its order.
define internal i1 @fits(ptr %state, i64 %positional, ptr %names) {
entry:
  %positional_at = getelementptr %State, ptr %state, i64 0, i32 1
  %wanted_positional = load i64, ptr %positional_at
  %same_positional = icmp eq i64 %positional, %wanted_positional
  br i1 %same_positional, label %keywords, label %no
keywords:
  %count_at = getelementptr %State, ptr %state, i64 0, i32 2
  %wanted_count = load i64, ptr %count_at
  %has_none = icmp eq ptr %names, null
  br i1 %has_none, label %counted, label %size
size:
  %given = call i64 @PyTuple_Size(ptr %names)
  br label %counted
counted:
  %count = phi i64 [ 0, %keywords ], [ %given, %size ]
  %same_count = icmp eq i64 %count, %wanted_count
  br i1 %same_count, label %next, label %no
next:
  %number = phi i64 [ 0, %counted ], [ %following, %same ]
  %end = icmp eq i64 %number, %count
  br i1 %end, label %yes, label %look
look:
  %wanted_names_at = getelementptr %State, ptr %state, i64 0, i32 3
  %wanted_names = load ptr, ptr %wanted_names_at
  %wanted = call ptr @object(ptr %wanted_names, i64 %number)
  %name = call ptr @PyTuple_GetItem(ptr %names, i64 %number)
  %is_same = icmp eq ptr %name, %wanted
  br i1 %is_same, label %same, label %no
same:
  %following = add i64 %number, 1
  br label %next
yes:
  ret i1 true
no:
  ret i1 false
}

; Try one form of call. Returns the result, null with an exception set, or the address 1 where the call has another form.
; An exception that comparing raised only means that: the slow path will meet it again. But Ctrl-C is raised.
define internal ptr @attempt(ptr %state, ptr %arguments, i64 %positional, ptr %names) {
entry:
  %fits = call i1 @fits(ptr %state, i64 %positional, ptr %names)
  br i1 %fits, label %frame_of, label %other
frame_of:
  %keywords_at = getelementptr %State, ptr %state, i64 0, i32 2
  %keywords = load i64, ptr %keywords_at
  %count = add i64 %positional, %keywords
  %length_at = getelementptr %State, ptr %state, i64 0, i32 8
  %length = load i64, ptr %length_at
  %inputs_at = getelementptr %State, ptr %state, i64 0, i32 9
  %inputs = load i64, ptr %inputs_at
  %items_at = getelementptr %State, ptr %state, i64 0, i32 23
  %items = load i64, ptr %items_at
  %frame = alloca %Frame
  %scratch_bytes = mul i64 %inputs, 16
  %table_bytes = mul i64 %length, 8
  %held_bytes = mul i64 %items, 8
  %two_bytes = add i64 %scratch_bytes, %table_bytes
  %all_bytes = add i64 %two_bytes, %held_bytes
  %is_large = icmp ugt i64 %all_bytes, 4096  ; the `__eq__` of a key may call the function anew, as deep as Python goes
  br i1 %is_large, label %from_heap, label %from_stack
from_heap:
  %block = call ptr @PyMem_RawMalloc(i64 %all_bytes)
  %out_of_memory = icmp eq ptr %block, null
  br i1 %out_of_memory, label %no_memory, label %lay_out
from_stack:
  %stack = alloca i8, i64 %all_bytes, align 16
  br label %lay_out
lay_out:
  %scratch = phi ptr [ %block, %from_heap ], [ %stack, %from_stack ]
  %table = getelementptr i8, ptr %scratch, i64 %scratch_bytes
  %held = getelementptr i8, ptr %table, i64 %table_bytes
  %start_at = getelementptr %State, ptr %state, i64 0, i32 7
  %start = load ptr, ptr %start_at
  call void @llvm.memcpy.p0.p0.i64(ptr %table, ptr %start, i64 %table_bytes, i1 false)
  store ptr %table, ptr %frame
  %scratch_at = getelementptr %Frame, ptr %frame, i64 0, i32 1
  store ptr %scratch, ptr %scratch_at
  %held_at = getelementptr %Frame, ptr %frame, i64 0, i32 2
  store ptr %held, ptr %held_at
  %held_count_at = getelementptr %Frame, ptr %frame, i64 0, i32 3
  store i64 0, ptr %held_count_at
  %pattern_at = getelementptr %State, ptr %state, i64 0, i32 4
  %pattern = load ptr, ptr %pattern_at
  br label %next
next:
  %number = phi i64 [ 0, %lay_out ], [ %following, %matched ]
  %cursor = phi ptr [ %pattern, %lay_out ], [ %next_cursor, %matched ]
  %end = icmp eq i64 %number, %count
  br i1 %end, label %guards, label %look
look:
  %argument = call ptr @object(ptr %arguments, i64 %number)
  %next_cursor = call ptr @match(ptr %argument, ptr %cursor, ptr %frame)
  %differs = icmp eq ptr %next_cursor, null
  br i1 %differs, label %different, label %matched
matched:
  %following = add i64 %number, 1
  br label %next
guards:
  %probes_at = getelementptr %State, ptr %state, i64 0, i32 5
  %probes = load ptr, ptr %probes_at
  %probe_count_at = getelementptr %State, ptr %state, i64 0, i32 6
  %probe_count = load i64, ptr %probe_count_at
  %is_unchanged = call i1 @unchanged(ptr %probes, i64 %probe_count)
  br i1 %is_unchanged, label %go, label %different
go:
  %out_at = getelementptr %State, ptr %state, i64 0, i32 21
  %out_number = load i64, ptr %out_at
  %makes_arrays = icmp slt i64 %out_number, 0
  br i1 %makes_arrays, label %compute, label %check_out
check_out:
  %sizes_at = getelementptr %State, ptr %state, i64 0, i32 22
  %sizes = load ptr, ptr %sizes_at
  %outputs_at = getelementptr %State, ptr %state, i64 0, i32 10
  %outputs = load i64, ptr %outputs_at
  %is_apart = call i1 @apart(ptr %table, ptr %sizes, i64 %length, i64 %outputs)
  br i1 %is_apart, label %take_out, label %different
take_out:
  %given_out = call ptr @object(ptr %arguments, i64 %out_number)
  br label %compute
compute:
  %out = phi ptr [ null, %go ], [ %given_out, %take_out ]
  %computed = call ptr @compute(ptr %state, ptr %frame, ptr %out)
  br label %release
different:
  %error = call ptr @PyErr_Occurred()
  %raised = icmp ne ptr %error, null
  br i1 %raised, label %judge, label %release
judge:
  %ordinary = load ptr, ptr @PyExc_Exception
  %matches = call i32 @PyErr_ExceptionMatches(ptr %ordinary)
  %is_ordinary = icmp ne i32 %matches, 0
  br i1 %is_ordinary, label %forget, label %release
forget:
  call void @PyErr_Clear()
  br label %release
release:
  %result = phi ptr [ %computed, %compute ], [ inttoptr (i64 1 to ptr), %different ], [ null, %judge ],
                    [ inttoptr (i64 1 to ptr), %forget ]
  %held_count = load i64, ptr %held_count_at
  call void @release_all(ptr %held, i64 %held_count)
  br i1 %is_large, label %free, label %done
free:
  call void @PyMem_RawFree(ptr %scratch)
  br label %done
done:
  ret ptr %result
no_memory:
  %ignored = call ptr @PyErr_NoMemory()
  ret ptr null
other:
  ret ptr inttoptr (i64 1 to ptr)
}

; Make the result of what @attempt returned, where @build could not; all that @attempt had on the stack is gone by now.
define internal ptr @finish(ptr %state, ptr %result) alwaysinline {
entry:
  %finish_at = getelementptr %State, ptr %state, i64 0, i32 13
  %finish = load ptr, ptr %finish_at
  %has_finish = icmp ne ptr %finish, null
  %has_result = icmp ugt ptr %result, inttoptr (i64 1 to ptr)
  %more = and i1 %has_result, %has_finish
  br i1 %more, label %call, label %done
call:
  %finished = call ptr @PyObject_CallOneArg(ptr %finish, ptr %result)
  call void @Py_DecRef(ptr %result)
  ret ptr %finished
done:
  ret ptr %result
}

; The vectorcall function: PyObject *(PyObject *callable, PyObject *const *arguments, size_t flags, PyObject *names)
define ptr @sg_call(ptr %callable, ptr %arguments, i64 %flags, ptr %names) {
entry:
  %positional = and i64 %flags, 9223372036854775807  ; without PY_VECTORCALL_ARGUMENTS_OFFSET
  %tracing_at = load ptr, ptr @tracing
  %traces = load i64, ptr %tracing_at
  %is_tracing = icmp ne i64 %traces, 0
  br i1 %is_tracing, label %slow, label %fast
fast:
  %head_at = getelementptr i8, ptr %callable, i64 24
  %head = load ptr, ptr %head_at
  %first = load ptr, ptr %head
  br label %next
next:
  %state = phi ptr [ %first, %fast ], [ %following, %other ]
  %none = icmp eq ptr %state, null
  br i1 %none, label %slow, label %try
try:
  %inside_at = getelementptr %State, ptr %state, i64 0, i32 24
  %outside = load i64, ptr %inside_at
  %inside = add i64 %outside, 1
  store i64 %inside, ptr %inside_at
  %found = call ptr @attempt(ptr %state, ptr %arguments, i64 %positional, ptr %names)
  %result = call ptr @finish(ptr %state, ptr %found)
  %inside_now = load i64, ptr %inside_at
  %outside_again = sub i64 %inside_now, 1
  store i64 %outside_again, ptr %inside_at
  %is_other = icmp eq ptr %result, inttoptr (i64 1 to ptr)
  br i1 %is_other, label %other, label %done
other:
  %following = load ptr, ptr %state  ; null where the form was taken out in the meantime
  br label %next
done:
  ret ptr %result
slow:
  %name = load ptr, ptr @slow_name
  %method = call ptr @PyObject_GetAttr(ptr %callable, ptr %name)
  %no_method = icmp eq ptr %method, null
  br i1 %no_method, label %failed, label %call
call:
  %slow_result = call ptr @PyObject_Vectorcall(ptr %method, ptr %arguments, i64 %positional, ptr %names)
  call void @Py_DecRef(ptr %method)
  ret ptr %slow_result
failed:
  ret ptr null
}
