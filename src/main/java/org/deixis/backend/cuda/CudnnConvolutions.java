package org.deixis.backend.cuda;

import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Deque;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import org.bytedeco.cuda.cudnn.cudnnContext;
import org.bytedeco.cuda.cudnn.cudnnConvolutionBwdDataAlgoPerf_t;
import org.bytedeco.cuda.cudnn.cudnnConvolutionBwdFilterAlgoPerf_t;
import org.bytedeco.cuda.cudnn.cudnnConvolutionFwdAlgoPerf_t;
import org.bytedeco.cuda.cudnn.cudnnConvolutionStruct;
import org.bytedeco.cuda.cudnn.cudnnFilterStruct;
import org.bytedeco.cuda.cudnn.cudnnTensorStruct;
import org.bytedeco.cuda.global.cudnn;
import org.bytedeco.javacpp.FloatPointer;
import org.bytedeco.javacpp.Loader;
import org.bytedeco.javacpp.SizeTPointer;
import org.deixis.backend.Array;
import org.deixis.backend.Binary;
import org.deixis.backend.Conv2d;
import org.deixis.core.DType;
import org.deixis.core.Shape;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * Convolutions by cuDNN, fp32 accumulation, fp32 without TF32. Pictures are channels-last as they
 * lie; the library's kernels for that layout want the weight channels-last too, so that a permuted
 * copy of it (a few MB at most) is made before, and of its gradient after.
 *
 * <p>Algorithms are those of the library's heuristic, without any timing, that are deterministic
 * and sum products of the inputs themselves: Winograd and Fourier transforms lose digits. Nothing
 * is allocated or waited for in a call, but for pooled scratch, so that a stream may be captured
 * once a shape was seen.
 *
 * <p>A shape for which cuDNN has no such algorithm, or refuses at its first call all that it has,
 * goes the way of {@link Im2colConvolutions}, with a warning; operands that do not begin at 16
 * bytes, which cuDNN may assume, go there too.
 */
final class CudnnConvolutions implements Convolutions {
  private static final Logger LOG = LoggerFactory.getLogger(CudnnConvolutions.class);
  private static final long MOST_WORKSPACE = 256L << 20;
  private static final long ALIGNMENT = 16;
  private static final int[] CHANNELS_LAST = {0, 2, 3, 1};
  private static final int[] CHANNELS_FIRST = {0, 3, 1, 2};

  /** What is computed: y, dx or dw. */
  enum Pass {
    FORWARD(
        cudnn.CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_GEMM,
        cudnn.CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_PRECOMP_GEMM),
    DATA(cudnn.CUDNN_CONVOLUTION_BWD_DATA_ALGO_1),
    WEIGHT(cudnn.CUDNN_CONVOLUTION_BWD_FILTER_ALGO_1);

    private final Set<Integer> exact;

    Pass(Integer... exact) {
      this.exact = Set.of(exact);
    }
  }

  private record Key(Pass pass, Conv2d spec, DType dtype) {}

  /** An algorithm as the heuristic proposes it, best first. */
  private record Candidate(int algorithm, int status, int determinism, int mathType) {}

  /** What may be taken of the heuristic's proposals. */
  private record Choice(int algorithm, int mathType, long workspace) {}

  /** Descriptors of one shape, and the algorithms that it may take: none where im2col has to do. */
  private static final class Plan {
    final cudnnTensorStruct x = new cudnnTensorStruct();
    final cudnnTensorStruct y = new cudnnTensorStruct();
    final cudnnFilterStruct weight = new cudnnFilterStruct();
    final cudnnConvolutionStruct convolution = new cudnnConvolutionStruct();
    final Deque<Choice> choices = new ArrayDeque<>();

    /** Whether the first choice has computed something. */
    boolean proven;

    Choice choice() {
      return choices.getFirst();
    }
  }

  private static String missing;
  private static boolean tried;

  private final Driver driver;
  private final DeviceMemory memory;
  private final CudaMoves moves;
  private final CudaElementwise elementwise;
  private final Im2colConvolutions im2col;
  private final cudnnContext handle = new cudnnContext();
  private final Map<Key, Plan> plans = new HashMap<>();
  private final FloatPointer one = new FloatPointer(1f);
  private final FloatPointer zero = new FloatPointer(0f);

  CudnnConvolutions(
      Driver driver,
      DeviceMemory memory,
      CudaMoves moves,
      CudaElementwise elementwise,
      Im2colConvolutions im2col) {
    this.driver = driver;
    this.memory = memory;
    this.moves = moves;
    this.elementwise = elementwise;
    this.im2col = im2col;
    driver.enter();
    check(cudnn.cudnnCreate(handle), "cudnnCreate (DEIXIS_CONV=im2col does without cuDNN)");
    driver.lock();
    try {
      check(cudnn.cudnnSetStream(handle, driver.stream()), "cudnnSetStream");
    } finally {
      driver.unlock();
    }
  }

  /** Null when cuDNN can be loaded, else what is missing. */
  static synchronized String missing() {
    if (!tried) {
      tried = true; // a class that failed to load names the reason only once
      try {
        Loader.load(cudnn.class);
      } catch (LinkageError | RuntimeException e) {
        missing =
            "cuDNN cannot be loaded ("
                + Driver.reason(e)
                + "); put "
                + String.join(", ", CudaLibraries.CUDNN)
                + ", which come in one package, on the library path, or"
                + " set DEIXIS_CONV=im2col for convolutions as products with patches";
      }
    }
    return missing;
  }

  /** How many shapes cuDNN computes by now, each pass counted. */
  int plans() {
    return (int) plans.values().stream().filter(p -> !p.choices.isEmpty()).count();
  }

  /**
   * A pass with the channels-last weight, or room for it, and the workspace; the library's status.
   */
  private interface Call {
    int run(Array filter, DeviceAddress workspace);
  }

  /** False where cuDNN, at a shape's first call, refuses every algorithm that it proposed. */
  private boolean call(Plan plan, Conv2d s, Array weight, String name, Call call) {
    while (true) {
      int code = callOnce(plan, s, weight, call);
      if (code == cudnn.CUDNN_STATUS_SUCCESS) {
        plan.proven = true;
        return true;
      }
      if (plan.proven) {
        check(code, name + " " + s);
      }
      LOG.warn(
          "cuDNN proposed algorithm {} of {} for {} and then said {}",
          plan.choice().algorithm,
          name,
          s,
          cudnn.cudnnGetErrorString(code).getString());
      plan.choices.removeFirst();
      if (plan.choices.isEmpty()) {
        destroy(plan);
        return false;
      }
      setMath(plan, plan.choice().mathType);
    }
  }

  private int callOnce(Plan plan, Conv2d s, Array weight, Call call) {
    DeviceBuffer workspace = memory.scratch(Math.max(1, plan.choice().workspace));
    try {
      DeviceBuffer room = memory.scratch(weight.bytes());
      try {
        Shape shape = Shape.of(s.outChannels(), s.kernel(), s.kernel(), s.inChannels());
        return call.run(
            new Array(room, 0, shape, weight.dtype()), new DeviceAddress(workspace.address()));
      } finally {
        room.release();
      }
    } finally {
      workspace.release();
    }
  }

  @Override
  public void forward(Conv2d s, Array x, Array weight, Array bias, Array y) {
    driver.lock();
    try {
      forwardInTurn(s, x, weight, bias, y);
    } finally {
      driver.unlock();
    }
  }

  private void forwardInTurn(Conv2d s, Array x, Array weight, Array bias, Array y) {
    Plan p = plan(Pass.FORWARD, s, x, weight, y);
    if (p == null || !forwardBy(p, s, x, weight, y)) {
      im2col.forward(s, x, weight, bias, y);
      return;
    }
    if (bias != null) {
      int pixels = s.batch() * s.outHeight() * s.outWidth();
      elementwise.binary(Binary.ADD, 1, pixels, s.outChannels(), false, false, true, y, bias, y);
    }
  }

  private boolean forwardBy(Plan p, Conv2d s, Array x, Array weight, Array y) {
    return call(
        p,
        s,
        weight,
        "cudnnConvolutionForward",
        (filter, space) -> {
          moves.transpose(weight, CHANNELS_LAST, filter);
          return cudnn.cudnnConvolutionForward(
              handle,
              one,
              p.x,
              at(x),
              p.weight,
              at(filter),
              p.convolution,
              p.choice().algorithm,
              space,
              p.choice().workspace,
              zero,
              p.y,
              at(y));
        });
  }

  @Override
  public void backwardData(Conv2d s, Array weight, Array dy, Array dx) {
    driver.lock();
    try {
      backwardDataInTurn(s, weight, dy, dx);
    } finally {
      driver.unlock();
    }
  }

  private void backwardDataInTurn(Conv2d s, Array weight, Array dy, Array dx) {
    Plan p = plan(Pass.DATA, s, dx, weight, dy);
    if (p == null || !backwardDataBy(p, s, weight, dy, dx)) {
      im2col.backwardData(s, weight, dy, dx);
    }
  }

  private boolean backwardDataBy(Plan p, Conv2d s, Array weight, Array dy, Array dx) {
    return call(
        p,
        s,
        weight,
        "cudnnConvolutionBackwardData",
        (filter, space) -> {
          moves.transpose(weight, CHANNELS_LAST, filter);
          return cudnn.cudnnConvolutionBackwardData(
              handle,
              one,
              p.weight,
              at(filter),
              p.y,
              at(dy),
              p.convolution,
              p.choice().algorithm,
              space,
              p.choice().workspace,
              zero,
              p.x,
              at(dx));
        });
  }

  @Override
  public void backwardWeight(Conv2d s, Array x, Array dy, Array dWeight) {
    driver.lock();
    try {
      backwardWeightInTurn(s, x, dy, dWeight);
    } finally {
      driver.unlock();
    }
  }

  private void backwardWeightInTurn(Conv2d s, Array x, Array dy, Array dWeight) {
    Plan p = plan(Pass.WEIGHT, s, x, dWeight, dy);
    if (p == null || !backwardWeightBy(p, s, x, dy, dWeight)) {
      im2col.backwardWeight(s, x, dy, dWeight);
    }
  }

  private boolean backwardWeightBy(Plan p, Conv2d s, Array x, Array dy, Array dWeight) {
    return call(
        p,
        s,
        dWeight,
        "cudnnConvolutionBackwardFilter",
        (filter, space) -> {
          int code =
              cudnn.cudnnConvolutionBackwardFilter(
                  handle,
                  one,
                  p.x,
                  at(x),
                  p.y,
                  at(dy),
                  p.convolution,
                  p.choice().algorithm,
                  space,
                  p.choice().workspace,
                  zero,
                  p.weight,
                  at(filter));
          if (code == cudnn.CUDNN_STATUS_SUCCESS) {
            moves.transpose(filter, CHANNELS_FIRST, dWeight);
          }
          return code;
        });
  }

  private static DeviceAddress at(Array a) {
    return new DeviceAddress(DeviceBuffer.address(a));
  }

  /** Null where im2col has to do. */
  private Plan plan(Pass pass, Conv2d s, Array x, Array weight, Array y) {
    long most = Math.max(x.size(), Math.max(weight.size(), y.size()));
    long addresses =
        DeviceBuffer.address(x) | DeviceBuffer.address(weight) | DeviceBuffer.address(y);
    if (x.size() == 0 || weight.size() == 0 || y.size() == 0 || addresses % ALIGNMENT != 0) {
      return null;
    }
    driver.enter();
    Plan plan =
        plans.computeIfAbsent(
            new Key(pass, s, x.dtype()), k -> most > Integer.MAX_VALUE ? refused(k) : make(k));
    return plan.choices.isEmpty() ? null : plan;
  }

  private static Plan refused(Key key) {
    LOG.warn(
        "cuDNN has no deterministic algorithm within {} MiB for {}: this shape is computed by"
            + " im2col",
        MOST_WORKSPACE >> 20,
        key);
    return new Plan();
  }

  private Plan make(Key key) {
    Conv2d s = key.spec;
    int type =
        switch (key.dtype) {
          case F32 -> cudnn.CUDNN_DATA_FLOAT;
          case F16 -> cudnn.CUDNN_DATA_HALF;
          case BF16 -> cudnn.CUDNN_DATA_BFLOAT16;
          default -> throw new IllegalArgumentException("no convolution of " + key.dtype);
        };
    Plan plan = new Plan();
    check(cudnn.cudnnCreateTensorDescriptor(plan.x), "cudnnCreateTensorDescriptor");
    check(cudnn.cudnnCreateTensorDescriptor(plan.y), "cudnnCreateTensorDescriptor");
    check(cudnn.cudnnCreateFilterDescriptor(plan.weight), "cudnnCreateFilterDescriptor");
    check(
        cudnn.cudnnCreateConvolutionDescriptor(plan.convolution),
        "cudnnCreateConvolutionDescriptor");
    int last = cudnn.CUDNN_TENSOR_NHWC;
    // Extents are given as N, C, H, W whatever the layout.
    check(
        cudnn.cudnnSetTensor4dDescriptor(
            plan.x, last, type, s.batch(), s.inChannels(), s.height(), s.width()),
        "cudnnSetTensor4dDescriptor of x");
    check(
        cudnn.cudnnSetTensor4dDescriptor(
            plan.y, last, type, s.batch(), s.outChannels(), s.outHeight(), s.outWidth()),
        "cudnnSetTensor4dDescriptor of y");
    check(
        cudnn.cudnnSetFilter4dDescriptor(
            plan.weight, type, last, s.outChannels(), s.inChannels(), s.kernel(), s.kernel()),
        "cudnnSetFilter4dDescriptor");
    check(
        cudnn.cudnnSetConvolution2dDescriptor(
            plan.convolution,
            s.padding(),
            s.padding(),
            s.stride(),
            s.stride(),
            1,
            1,
            cudnn.CUDNN_CROSS_CORRELATION,
            cudnn.CUDNN_DATA_FLOAT),
        "cudnnSetConvolution2dDescriptor");
    boolean exact = key.dtype == DType.F32;
    setMath(plan, exact ? cudnn.CUDNN_FMA_MATH : cudnn.CUDNN_TENSOR_OP_MATH);
    for (Candidate c : candidates(key.pass, plan)) {
      if (c.status != cudnn.CUDNN_STATUS_SUCCESS
          || c.determinism != cudnn.CUDNN_DETERMINISTIC
          || !key.pass.exact.contains(c.algorithm)) {
        continue;
      }
      int math = exact ? cudnn.CUDNN_FMA_MATH : c.mathType;
      setMath(plan, math);
      long bytes = workspace(key.pass, plan, c.algorithm);
      if (bytes >= 0 && bytes <= MOST_WORKSPACE) {
        plan.choices.add(new Choice(c.algorithm, math, bytes));
      }
    }
    if (plan.choices.isEmpty()) {
      destroy(plan);
      return refused(key);
    }
    setMath(plan, plan.choice().mathType);
    return plan;
  }

  private static void setMath(Plan plan, int mathType) {
    check(
        cudnn.cudnnSetConvolutionMathType(plan.convolution, mathType),
        "cudnnSetConvolutionMathType");
  }

  private List<Candidate> candidates(Pass pass, Plan p) {
    List<Candidate> found = new ArrayList<>();
    int[] n = new int[1];
    switch (pass) {
      case FORWARD -> {
        int most = cudnn.CUDNN_CONVOLUTION_FWD_ALGO_COUNT;
        try (cudnnConvolutionFwdAlgoPerf_t all = new cudnnConvolutionFwdAlgoPerf_t(most)) {
          n[0] =
              proposed(
                  cudnn.cudnnGetConvolutionForwardAlgorithm_v7(
                      handle, p.x, p.weight, p.convolution, p.y, most, n, all),
                  n[0]);
          for (int i = 0; i < n[0]; i++) {
            cudnnConvolutionFwdAlgoPerf_t a = all.getPointer(i);
            found.add(new Candidate(a.algo(), a.status(), a.determinism(), a.mathType()));
          }
        }
      }
      case DATA -> {
        int most = cudnn.CUDNN_CONVOLUTION_BWD_DATA_ALGO_COUNT;
        try (cudnnConvolutionBwdDataAlgoPerf_t all = new cudnnConvolutionBwdDataAlgoPerf_t(most)) {
          n[0] =
              proposed(
                  cudnn.cudnnGetConvolutionBackwardDataAlgorithm_v7(
                      handle, p.weight, p.y, p.convolution, p.x, most, n, all),
                  n[0]);
          for (int i = 0; i < n[0]; i++) {
            cudnnConvolutionBwdDataAlgoPerf_t a = all.getPointer(i);
            found.add(new Candidate(a.algo(), a.status(), a.determinism(), a.mathType()));
          }
        }
      }
      case WEIGHT -> {
        int most = cudnn.CUDNN_CONVOLUTION_BWD_FILTER_ALGO_COUNT;
        try (cudnnConvolutionBwdFilterAlgoPerf_t all =
            new cudnnConvolutionBwdFilterAlgoPerf_t(most)) {
          n[0] =
              proposed(
                  cudnn.cudnnGetConvolutionBackwardFilterAlgorithm_v7(
                      handle, p.x, p.y, p.convolution, p.weight, most, n, all),
                  n[0]);
          for (int i = 0; i < n[0]; i++) {
            cudnnConvolutionBwdFilterAlgoPerf_t a = all.getPointer(i);
            found.add(new Candidate(a.algo(), a.status(), a.determinism(), a.mathType()));
          }
        }
      }
    }
    return found;
  }

  private static boolean unsupported(int code) {
    return code / 1000 == cudnn.CUDNN_STATUS_NOT_SUPPORTED / 1000;
  }

  /** How many proposals there are: none where the heuristic does not know the shape at all. */
  private static int proposed(int code, int found) {
    if (unsupported(code)) {
      return 0;
    }
    check(code, "cuDNN's heuristic for convolutions");
    return found;
  }

  /** Bytes that an algorithm needs beside its operands, −1 where it cannot take the shape. */
  private long workspace(Pass pass, Plan p, int algorithm) {
    try (SizeTPointer bytes = new SizeTPointer(1L)) {
      int code =
          switch (pass) {
            case FORWARD ->
                cudnn.cudnnGetConvolutionForwardWorkspaceSize(
                    handle, p.x, p.weight, p.convolution, p.y, algorithm, bytes);
            case DATA ->
                cudnn.cudnnGetConvolutionBackwardDataWorkspaceSize(
                    handle, p.weight, p.y, p.convolution, p.x, algorithm, bytes);
            case WEIGHT ->
                cudnn.cudnnGetConvolutionBackwardFilterWorkspaceSize(
                    handle, p.x, p.y, p.convolution, p.weight, algorithm, bytes);
          };
      if (unsupported(code)) {
        return -1;
      }
      check(code, "cudnnGetConvolutionWorkspaceSize");
      return bytes.get();
    }
  }

  private static void destroy(Plan p) {
    check(cudnn.cudnnDestroyTensorDescriptor(p.x), "cudnnDestroyTensorDescriptor");
    check(cudnn.cudnnDestroyTensorDescriptor(p.y), "cudnnDestroyTensorDescriptor");
    check(cudnn.cudnnDestroyFilterDescriptor(p.weight), "cudnnDestroyFilterDescriptor");
    check(
        cudnn.cudnnDestroyConvolutionDescriptor(p.convolution),
        "cudnnDestroyConvolutionDescriptor");
  }

  private static void check(int code, String call) {
    if (code != cudnn.CUDNN_STATUS_SUCCESS) {
      throw new IllegalStateException(
          call + " failed: " + cudnn.cudnnGetErrorString(code).getString());
    }
  }

  @Override
  public synchronized void close() {
    driver.synchronize();
    plans.values().stream().filter(p -> !p.choices.isEmpty()).forEach(CudnnConvolutions::destroy);
    plans.clear();
    check(cudnn.cudnnDestroy(handle), "cudnnDestroy");
  }
}
