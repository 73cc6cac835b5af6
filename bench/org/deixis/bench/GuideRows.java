package org.deixis.bench;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.stream.Stream;
import org.deixis.backend.Backend;
import org.deixis.backend.Scope;
import org.deixis.core.DType;
import org.deixis.core.InputException;
import org.deixis.export.OnnxExport;
import org.deixis.io.OnnxFile;
import org.deixis.model.bert.Tokens;
import org.deixis.model.gres.GresConfig;
import org.deixis.model.gres.GuideModel;
import org.deixis.model.gres.Prediction;
import org.deixis.nn.ParameterSource;
import org.deixis.tensor.Tensor;

/**
 * Inference of the guide model, Swin-B 224 and BERT-base with random weights: one phrase of a
 * picture, eight phrases of a picture, and one in bf16. ONNX Runtime runs the same weights, as
 * exported; its masks must be ours. The engine's time includes taking the picture in and handing
 * the mask out.
 */
final class GuideRows {
  static final int SIZE = 224;
  static final int TOKENS = 20;
  private static final int MANY = 8;
  private static final String SHARED = ", picture once";

  /** ONNX Runtime and the engine sum in different orders, through 24 blocks and 12 layers. */
  private static final double SAME = 1e-3;

  /** Seconds; a forward is dozens of kernels, each compiled after so many calls. */
  private static final double WARMING = 4;

  private final Bench bench;
  private final Backend backend;
  private final float[] picture = RandomInputs.picture(SIZE);

  GuideRows(Bench bench) {
    this.bench = bench;
    this.backend = bench.backend();
  }

  static GresConfig config() {
    return GresConfig.DEFAULT.withPictures(SIZE, SIZE, GresConfig.DEFAULT.swin());
  }

  private static String name(int phrases, DType dtype) {
    return "guide model, Swin-B 224 + BERT-base, %s%s"
        .formatted(
            phrases == 1 ? "one phrase" : phrases + " phrases of one picture",
            dtype == DType.F32 ? "" : ", " + dtype.name().toLowerCase(java.util.Locale.ROOT));
  }

  void measure() {
    DType own = bench.dtype();
    DType half = own == DType.F32 ? DType.BF16 : own;
    boolean one = own == DType.F32 && bench.wants(name(1, DType.F32));
    boolean many = own == DType.F32 && bench.wants(name(MANY, DType.F32));
    boolean inHalf = backend.supports(half) && bench.wants(name(1, half));
    if (!one && !many && !inHalf) {
      return;
    }
    float[] exact;
    try (GuideModel model = frozen(DType.F32)) {
      if (one || many) {
        fullPrecision(model, one, many);
      }
      exact = inHalf ? mask(model, 1) : null;
    }
    if (inHalf) {
      try (GuideModel model = frozen(half)) {
        halfPrecision(model, half, exact);
      }
    }
  }

  /** A model as a segmenter opens it. */
  private GuideModel frozen(DType products) {
    GuideModel model = new GuideModel(ParameterSource.fresh(backend, 1), config());
    model.freeze(products);
    return model;
  }

  private void fullPrecision(GuideModel model, boolean one, boolean many) {
    boolean cpu = backend.name().equals("cpu");
    boolean peers = bench.peers() != null || bench.mavenPeers() != null;
    try (OnnxPeers onnx = peers && cpu ? new OnnxPeers(model) : null) {
      if (one) {
        Row row = inference(model, 1, DType.F32, onnx);
        if (row.peers().containsKey(Row.PYTORCH) && cpu) {
          row.wants(Row.ONNX_RUNTIME, 1.1).wants(Row.PYTORCH, 1.4);
        }
        bench.add(row);
      }
      if (many) {
        Row row = inference(model, MANY, DType.F32, onnx);
        if (row.peers().containsKey(Row.ONNX_RUNTIME)) {
          row.wants(Row.ONNX_RUNTIME, 3.0);
        }
        bench.add(row);
      }
    }
  }

  private void halfPrecision(GuideModel model, DType dtype, float[] exact) {
    Row row = inference(model, 1, dtype, null);
    if (row.peers().containsKey(Row.PYTORCH)) {
      row.wants(Row.PYTORCH, 1.0);
    }
    bench.add(row);
    bench.add(
        Row.of(
                Row.Group.INFERENCE,
                name(1, dtype) + ": mask against fp32's",
                "IoU",
                iou(exact, mask(model, 1)))
            .with("wanted", 0.99));
  }

  private Row inference(GuideModel model, int phrases, DType dtype, OnnxPeers onnx) {
    List<PeerProcess.Work> theirs = new ArrayList<>();
    double off = 0;
    try {
      if (onnx != null) {
        off = onnx.prepare(phrases, mask(model, phrases), theirs);
      }
      bench.prepare(name(phrases, dtype), Row.PYTORCH, task(SIZE, phrases, dtype), theirs);
      boolean first = phrases == 1 && dtype == DType.F32; // the others find its kernels compiled
      Effort effort = bench.effort(phrases > 1 ? 3 : 5, 11, first ? WARMING : WARMING / 2);
      Contender engine = Contender.engine(backend, () -> mask(model, phrases));
      Row row =
          Row.timed(
              Row.Group.INFERENCE,
              name(phrases, dtype),
              bench.time(name(phrases, dtype), engine, theirs, effort));
      return onnx == null ? row : row.with("mask_off_onnxruntime", off);
    } finally {
      bench.drop(theirs);
    }
  }

  /** The twin in PyTorch: Swin-B and BERT-base, one picture. */
  static Map<String, Object> task(int size, int phrases, DType dtype) {
    Map<String, Object> task = new HashMap<>();
    task.put("kind", "guide");
    task.put("config", "swin-b");
    task.put("images", 1);
    task.put("size", size);
    task.put("share", phrases);
    task.put("dtype", dtype.name().toLowerCase(java.util.Locale.ROOT));
    return task;
  }

  /** Mask logits of the first phrases. */
  private float[] mask(GuideModel model, int phrases) {
    try (Scope scope = Scope.open()) {
      Tensor image = Tensor.floats(backend, picture, 1, 3, SIZE, SIZE);
      Prediction found = model.forward(image, model.upload(tokens(phrases)));
      return found.mask().toFloats();
    }
  }

  private static Tokens tokens(int phrases) {
    return RandomInputs.tokens(phrases, TOKENS, GresConfig.DEFAULT.text().vocab());
  }

  /** Of what is positive. */
  static double iou(float[] a, float[] b) {
    long both = 0;
    long any = 0;
    for (int i = 0; i < a.length; i++) {
      boolean x = a[i] > 0;
      boolean y = b[i] > 0;
      both += x && y ? 1 : 0;
      any += x || y ? 1 : 0;
    }
    return any == 0 ? 1 : (double) both / any;
  }

  /** ‖a − b‖ / ‖b‖. */
  static double difference(float[] a, float[] b) {
    if (a.length != b.length) {
      throw new IllegalArgumentException(a.length + " values against " + b.length);
    }
    double off = 0;
    double size = 0;
    for (int i = 0; i < a.length; i++) {
      off += (a[i] - b[i]) * (double) (a[i] - b[i]);
      size += b[i] * (double) b[i];
    }
    return Math.sqrt(off / size);
  }

  /** ONNX Runtime, from Python and from Java, with the model that this engine exports. */
  private final class OnnxPeers implements AutoCloseable {
    private final Path folder;
    private final Map<String, PeerProcess> processes = new LinkedHashMap<>();
    private final Path model;

    OnnxPeers(GuideModel guide) {
      Path made = null;
      try {
        made = Bench.temporaryFolder();
        model = made.resolve("guide.onnx");
        OnnxExport.write(
            guide,
            model,
            new OnnxExport.Options(17, DType.F32, config().regions(), OnnxFile.MOST_INLINE));
        write(made.resolve("image.f32"), picture);
        Bench.Peers python = bench.peers();
        if (python != null) {
          start(Row.ONNX_RUNTIME, new PeerProcess(python.python(), python.onnxRuntime(), "cpu"));
        }
        if (bench.mavenPeers() != null) {
          start(Row.ONNX_RUNTIME_JAVA, bench.mavenPeers().onnxRuntime());
        }
      } catch (IOException e) {
        throw new InputException("cannot write the exported model: " + e.getMessage(), e);
      } catch (RuntimeException e) {
        processes.values().forEach(PeerProcess::close);
        delete(made);
        throw e;
      }
      folder = made;
    }

    private void start(String name, PeerProcess process) {
      processes.put(name, process);
      bench.versions(process);
    }

    /**
     * Has every peer build its work, and of several phrases also that which encodes the picture
     * once.
     *
     * @param ours mask logits that theirs must agree with
     * @return how far theirs are off at most
     */
    double prepare(int phrases, float[] ours, List<PeerProcess.Work> to) {
      double off = 0;
      for (Map.Entry<String, PeerProcess> peer : processes.entrySet()) {
        to.add(prepare(peer.getValue(), peer.getKey(), phrases, phrases));
        off = Math.max(off, difference(ours));
        if (phrases > 1) {
          to.add(prepare(peer.getValue(), peer.getKey() + SHARED, 1, phrases));
          off = Math.max(off, difference(ours));
        }
      }
      return off;
    }

    private PeerProcess.Work prepare(PeerProcess peer, String name, int pictures, int phrases) {
      try {
        write(folder.resolve("ids.i64"), tokens(phrases).ids());
      } catch (IOException e) {
        throw new InputException("cannot write to " + folder + ": " + e.getMessage(), e);
      }
      Map<String, Object> task = new HashMap<>();
      task.put("kind", "onnx");
      task.put("file", model.toString());
      task.put("image", folder.resolve("image.f32").toString());
      task.put("ids", folder.resolve("ids.i64").toString());
      task.put("mask", folder.resolve("mask.f32").toString());
      task.put("pictures", pictures);
      task.put("phrases", phrases);
      task.put("size", SIZE);
      task.put("tokens", TOKENS);
      return peer.prepare(name, task)
          .orElseThrow(() -> new IllegalStateException(name + " does not know exported models"));
    }

    /** How far ours is from the mask that the peer wrote last; an error if it is another one. */
    private double difference(float[] ours) {
      try {
        ByteBuffer bytes =
            ByteBuffer.wrap(Files.readAllBytes(folder.resolve("mask.f32")))
                .order(ByteOrder.LITTLE_ENDIAN);
        float[] theirs = new float[bytes.remaining() / 4];
        bytes.asFloatBuffer().get(theirs);
        double off = GuideRows.difference(ours, theirs);
        if (!(off < SAME)) {
          throw new IllegalStateException(
              "ONNX Runtime's mask differs by " + off + ": the times would compare two models");
        }
        return off;
      } catch (IOException e) {
        throw new InputException("no answer in " + folder + ": " + e.getMessage(), e);
      }
    }

    private static void write(Path file, float[] values) throws IOException {
      ByteBuffer bytes = ByteBuffer.allocate(4 * values.length).order(ByteOrder.LITTLE_ENDIAN);
      bytes.asFloatBuffer().put(values);
      Files.write(file, bytes.array());
    }

    private static void write(Path file, int[] ids) throws IOException {
      ByteBuffer bytes = ByteBuffer.allocate(8 * ids.length).order(ByteOrder.LITTLE_ENDIAN);
      for (int id : ids) {
        bytes.putLong(id);
      }
      Files.write(file, bytes.array());
    }

    @Override
    public void close() {
      processes.values().forEach(PeerProcess::close);
      delete(folder);
    }
  }

  /** A folder and all that is in it. */
  static void delete(Path folder) {
    if (folder == null) {
      return;
    }
    try (Stream<Path> files = Files.walk(folder)) {
      for (Path file : files.sorted(Comparator.reverseOrder()).toList()) {
        Files.delete(file);
      }
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }
}
