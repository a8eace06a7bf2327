# SPDX-License-Identifier: Apache-2.0
"""Finds the ops of a SavedModel that the exporter does not allow.

A SavedModel is a program: loading or calling it may run any of its functions, and some ops of TensorFlow read and write
files, run Python functions or communicate with other processes. The exporter therefore checks a SavedModel before it
loads it. The check allows

* ops that only compute with tensors, including all ops of Keras models that the converters (tf2onnx, LiteRT) convert;
* ops that TensorFlow adds to them: variables, calls of functions, control flow, random numbers, gradients;
* the ops of keras_dynfilter.

It refuses all other ops, known or unknown. A list of forbidden ops could not be complete, because TensorFlow has more
than a thousand ops and every version adds some. The option `--unsafe` loads a model in spite of refused ops.
"""

from typing import Any

from keras_dynfilter.ops.backends.raw_ops import PREFIX

# Ops whose only effect is their result. One paragraph for each purpose.
COMPUTE = """
    Abs Acos Acosh Add AddN AddV2 Angle ApproximateEqual Asin Asinh Atan Atan2 Atanh BesselI0e BesselI1e BitwiseAnd
    BitwiseOr BitwiseXor Ceil ClipByValue Complex ComplexAbs Conj Cos Cosh Cross Cumprod Cumsum CumulativeLogsumexp
    Digamma Div DivNoNan Erf Erfc Erfinv Exp Expm1 Floor FloorDiv FloorMod Igamma Igammac Imag Inv Invert LeftShift
    Lgamma Log Log1p Maximum Minimum Mod Mul MulNoNan Ndtri Neg NextAfter Polygamma Pow Real RealDiv Reciprocal
    RightShift Rint Round Rsqrt Sigmoid Sign Sin Sinh Sqrt Square SquaredDifference Sub Tan Tanh TruncateDiv TruncateMod
    Xdivy Xlog1py Xlogy Zeta

    Equal Greater GreaterEqual IsFinite IsInf IsNan Less LessEqual LogicalAnd LogicalNot LogicalOr NotEqual Select
    SelectV2

    All Any ArgMax ArgMin Bincount Bucketize DenseBincount EuclideanNorm InTopK InTopKV2 Max Mean Min Prod
    SegmentMax SegmentMean SegmentMin SegmentProd SegmentSum SparseSegmentMean SparseSegmentMeanWithNumSegments
    SparseSegmentSqrtN SparseSegmentSqrtNWithNumSegments SparseSegmentSum SparseSegmentSumWithNumSegments Sum TopK
    TopKV2 UnsortedSegmentMax UnsortedSegmentMin UnsortedSegmentProd UnsortedSegmentSum

    BatchMatMul BatchMatMulV2 BatchMatMulV3 Cholesky Einsum MatMul MatrixBandPart MatrixDeterminant MatrixDiag
    MatrixDiagPart MatrixDiagPartV2 MatrixDiagPartV3 MatrixDiagV2 MatrixDiagV3 MatrixInverse MatrixSetDiag
    MatrixSetDiagV2 MatrixSetDiagV3 MatrixSolve MatrixTriangularSolve Qr SelfAdjointEigV2 Svd Diag DiagPart

    AvgPool AvgPool3D BiasAdd BiasAddV1 Conv Conv2D Conv3D CropAndResize CudnnRNN CudnnRNNV2 CudnnRNNV3
    DepthwiseConv2dNative Dilation2D Elu ExtractImagePatches ExtractVolumePatches FractionalAvgPool FractionalMaxPool
    FusedBatchNorm FusedBatchNormV2 FusedBatchNormV3 GRUBlockCell L2Loss LRN LSTMBlockCell LeakyRelu LogSoftmax MaxPool
    MaxPool3D MaxPoolV2 MaxPoolWithArgmax Relu Relu6 Selu Softmax SoftmaxCrossEntropyWithLogits Softplus Softsign
    SparseSoftmaxCrossEntropyWithLogits

    AdjustContrastv2 AdjustHue AdjustSaturation CombinedNonMaxSuppression HSVToRGB ImageProjectiveTransformV2
    ImageProjectiveTransformV3 NonMaxSuppression NonMaxSuppressionV2 NonMaxSuppressionV3 NonMaxSuppressionV4
    NonMaxSuppressionV5 RGBToHSV ResizeArea ResizeBicubic ResizeBilinear ResizeNearestNeighbor ScaleAndTranslate

    FFT FFT2D FFT3D IFFT IFFT2D IFFT3D IRFFT IRFFT2D IRFFT3D RFFT RFFT2D RFFT3D

    BatchToSpace BatchToSpaceND Bitcast BroadcastArgs BroadcastTo Cast Concat ConcatOffset ConcatV2 Const DepthToSpace
    DynamicPartition DynamicStitch EnsureShape Empty ExpandDims Fill Gather GatherNd GatherV2 Identity IdentityN
    InvertPermutation LinSpace MirrorPad OneHot OnesLike Pack Pad PadV2 ParallelConcat ParallelDynamicStitch Placeholder
    PlaceholderV2 PlaceholderWithDefault Range Rank Reshape Reverse ReverseSequence ReverseV2 Roll ScatterNd
    Shape ShapeN Size Slice Snapshot SpaceToBatch SpaceToBatchND SpaceToDepth Split SplitV Squeeze
    StopGradient StridedSlice TensorScatterAdd TensorScatterMax TensorScatterMin TensorScatterSub TensorScatterUpdate
    Tile Transpose Unique UniqueV2 UniqueWithCounts UniqueWithCountsV2 Unpack UpperBound LowerBound UnravelIndex Where
    ZerosLike PreventGradient

    FakeQuantWithMinMaxArgs FakeQuantWithMinMaxVars FakeQuantWithMinMaxVarsPerChannel QuantizeAndDequantizeV2
    QuantizeAndDequantizeV3 QuantizeAndDequantizeV4

    RaggedRange RaggedTensorToSparse RaggedTensorToTensor SparseFillEmptyRows SparseReorder SparseReshape
    SparseTensorDenseMatMul SparseToDense
"""
# Variables; control flow, calls and checks; lists of tensors; random numbers.
STATE_AND_CONTROL = """
    AssignAddVariableOp AssignSubVariableOp AssignVariableOp DestroyResourceOp DisableCopyOnRead IsVariableInitialized
    ReadVariableOp ResourceGather ResourceGatherNd VarHandleOp VarIsInitializedOp VariableShape Variable VariableV2
    Assign AssignAdd AssignSub

    Assert Case CheckNumerics CheckNumericsV2 ControlTrigger Enter Exit If LoopCond Merge NextIteration NoOp
    PartitionedCall StatefulPartitionedCall StatelessCase StatelessIf StatelessWhile Switch SymbolicGradient While
    BroadcastGradientArgs

    EmptyTensorList TensorListConcatV2 TensorListElementShape TensorListFromTensor TensorListGather TensorListGetItem
    TensorListLength TensorListPopBack TensorListPushBack TensorListReserve TensorListResize TensorListScatter
    TensorListScatterV2 TensorListSetItem TensorListSplit TensorListStack

    Multinomial ParameterizedTruncatedNormal RandomGamma RandomShuffle RandomStandardNormal RandomUniform
    RandomUniformInt RngReadAndSkip StatefulUniform StatefulUniformInt StatelessMultinomial StatelessRandomGetAlg
    StatelessRandomGetKeyCounter StatelessRandomGetKeyCounterAlg StatelessRandomNormal StatelessRandomNormalV2
    StatelessRandomUniform StatelessRandomUniformFullInt StatelessRandomUniformFullIntV2 StatelessRandomUniformInt
    StatelessRandomUniformIntV2 StatelessRandomUniformV2 StatelessTruncatedNormal StatelessTruncatedNormalV2
    TruncatedNormal
"""
# Gradients, which the SavedModel of a trainable model contains.
GRADIENTS = """
    AvgPool3DGrad AvgPoolGrad BiasAddGrad Conv2DBackpropFilter Conv2DBackpropInput Conv3DBackpropFilterV2
    Conv3DBackpropInputV2 CropAndResizeGradBoxes CropAndResizeGradImage CudnnRNNBackprop CudnnRNNBackpropV2
    CudnnRNNBackpropV3 DepthwiseConv2dNativeBackpropFilter DepthwiseConv2dNativeBackpropInput Dilation2DBackpropFilter
    Dilation2DBackpropInput EluGrad FusedBatchNormGrad FusedBatchNormGradV2 FusedBatchNormGradV3 InvGrad LRNGrad
    LeakyReluGrad MaxPool3DGrad MaxPool3DGradGrad MaxPoolGrad MaxPoolGradGrad MaxPoolGradGradV2 MaxPoolGradV2
    MaxPoolGradWithArgmax MirrorPadGrad ReciprocalGrad Relu6Grad ReluGrad ResizeBicubicGrad ResizeBilinearGrad
    ResizeNearestNeighborGrad RsqrtGrad SeluGrad SigmoidGrad SoftplusGrad SoftsignGrad SqrtGrad StridedSliceGrad
    TanhGrad
"""
ALLOWED = frozenset((COMPUTE + STATE_AND_CONTROL + GRADIENTS).split())


def refused_ops(saved_model: Any) -> list[str]:
    """Returns the ops of a `SavedModel` message that are not allowed, sorted.

    Functions that only save and restore variables may hold any op, because the exporter never runs them.
    """
    used = set()
    for meta_graph in saved_model.meta_graphs:
        # If a SavedModel has no object graph, TensorFlow runs its saver to restore the variables.
        graph, has_object_graph = meta_graph.graph_def, meta_graph.HasField("object_graph_def")
        never_run = _saver_functions(meta_graph) if has_object_graph and len(saved_model.meta_graphs) == 1 else set()
        functions = [function for function in graph.library.function if function.signature.name not in never_run]
        used |= {node.op for node in graph.node}
        used |= {node.op for function in functions for node in function.node_def}
    return sorted(op for op in used if op not in ALLOWED and not op.startswith(PREFIX))


def _saver_functions(meta_graph: Any) -> set[str]:
    """Returns the names of the functions that save and restore variables.

    Returns none if anything else in the file refers to one of them or uses its result.
    """
    graph, saver = meta_graph.graph_def, meta_graph.saver_def
    entries = {saver.save_tensor_name.partition(":")[0], saver.restore_op_name} - {""}
    functions = {function.signature.name: function for function in graph.library.function}
    called = {value.func.name for node in graph.node if node.name in entries for value in node.attr.values()}
    saver_functions = called & set(functions)
    others = [meta_graph.object_graph_def, *graph.library.gradient]
    others += [node for node in graph.node if node.name not in entries]
    others += [function for name, function in functions.items() if name not in saver_functions]
    # A serialized message contains every name that it uses: as an op, in an attribute, in a list of functions.
    serialized = [message.SerializeToString() for message in others]
    named_elsewhere = any(name.encode() in message for name in saver_functions for message in serialized)
    consumed = {_node_name(value) for node in graph.node for value in node.input}
    outputs = (info for signature in meta_graph.signature_def.values() for info in signature.outputs.values())
    consumed |= {_node_name(info.name) for info in outputs}
    return set() if named_elsewhere or entries & consumed else saver_functions


def _node_name(tensor: str) -> str:
    """Returns the name of the node that computes a tensor: `"node"` for `"node:1"` and for `"^node"`."""
    return tensor.lstrip("^").partition(":")[0]
