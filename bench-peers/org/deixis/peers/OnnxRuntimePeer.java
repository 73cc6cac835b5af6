package org.deixis.peers;

import ai.onnxruntime.OnnxTensor;
import ai.onnxruntime.OrtEnvironment;
import ai.onnxruntime.OrtException;
import ai.onnxruntime.OrtSession;
import com.fasterxml.jackson.databind.JsonNode;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.FloatBuffer;
import java.nio.LongBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.HashMap;
import java.util.Map;
import java.util.Set;

/**
 * Runs the guide model that Deixis exported in ONNX Runtime's Java package, on the CPU. Tasks are
 * those of {@code bench/onnxruntime_peer.py}; input tensors are made once, outputs are left where
 * ONNX Runtime puts them.
 */
public final class OnnxRuntimePeer {
  private static final String KIND = "onnx";

  private final OrtEnvironment environment = OrtEnvironment.getEnvironment();
  private final Map<String, OrtSession> sessions = new HashMap<>();
  private final int threads;

  private OnnxRuntimePeer(int threads) {
    this.threads = threads;
  }

  /** Serves {@code deixis bench}: {@code serve --threads N}. */
  public static void main(String[] arguments) throws IOException {
    OnnxRuntimePeer peer;
    try {
      peer = new OnnxRuntimePeer(PeerProtocol.threads(arguments));
    } catch (LinkageError | IllegalArgumentException e) {
      System.err.println(e);
      System.exit(1);
      return;
    }
    Map<String, String> versions = Map.of("onnxruntime_java", peer.environment.getVersion());
    PeerProtocol.serve(versions, peer::prepare);
  }

  private OrtSession session(String file) throws OrtException {
    OrtSession session = sessions.get(file);
    if (session == null) {
      try (OrtSession.SessionOptions options = new OrtSession.SessionOptions()) {
        options.setIntraOpNumThreads(threads);
        options.setInterOpNumThreads(1);
        options.setOptimizationLevel(OrtSession.SessionOptions.OptLevel.ALL_OPT);
        session = environment.createSession(file, options);
      }
      sessions.put(file, session);
    }
    return session;
  }

  private PeerProtocol.Work prepare(JsonNode task) throws OrtException, IOException {
    if (!task.path("kind").asText().equals(KIND)) {
      return null;
    }
    OrtSession session = session(task.get("file").asText());
    int pictures = task.get("pictures").asInt();
    int phrases = task.get("phrases").asInt();
    int size = task.get("size").asInt();
    int tokens = task.get("tokens").asInt();
    FloatBuffer picture = read(task.get("image").asText()).asFloatBuffer();
    FloatBuffer images = direct(4L * pictures * picture.capacity()).asFloatBuffer();
    for (int i = 0; i < pictures; i++) {
      images.put(picture.duplicate());
    }
    LongBuffer ids = direct(8L * phrases * tokens).asLongBuffer();
    ids.put(read(task.get("ids").asText()).asLongBuffer().slice(0, ids.capacity()));
    LongBuffer present = direct(8L * phrases * tokens).asLongBuffer();
    while (present.hasRemaining()) {
      present.put(1);
    }
    Inference work = new Inference(session);
    try {
      work.input("image", images.flip(), new long[] {pictures, 3, size, size});
      work.input("input_ids", ids.flip(), new long[] {phrases, tokens});
      work.input("attention_mask", present.flip(), new long[] {phrases, tokens});
      Files.write(Path.of(task.get("mask").asText()), work.mask());
    } catch (OrtException | IOException | RuntimeException e) {
      work.close();
      throw e;
    }
    return work;
  }

  private static ByteBuffer read(String file) throws IOException {
    return ByteBuffer.wrap(Files.readAllBytes(Path.of(file))).order(ByteOrder.LITTLE_ENDIAN);
  }

  private static ByteBuffer direct(long bytes) {
    return ByteBuffer.allocateDirect(Math.toIntExact(bytes)).order(ByteOrder.nativeOrder());
  }

  private final class Inference implements PeerProtocol.Work {
    private final OrtSession session;
    private final Map<String, OnnxTensor> inputs = new HashMap<>();

    Inference(OrtSession session) {
      this.session = session;
    }

    void input(String name, FloatBuffer values, long[] shape) throws OrtException {
      inputs.put(name, OnnxTensor.createTensor(environment, values, shape));
    }

    void input(String name, LongBuffer values, long[] shape) throws OrtException {
      inputs.put(name, OnnxTensor.createTensor(environment, values, shape));
    }

    /** The mask's logits as raw float32, little-endian. */
    byte[] mask() throws OrtException {
      try (OrtSession.Result outputs = session.run(inputs, Set.of("mask"))) {
        FloatBuffer values = ((OnnxTensor) outputs.get(0)).getFloatBuffer();
        ByteBuffer bytes =
            ByteBuffer.allocate(4 * values.remaining()).order(ByteOrder.LITTLE_ENDIAN);
        bytes.asFloatBuffer().put(values);
        return bytes.array();
      }
    }

    @Override
    public void call() throws OrtException {
      session.run(inputs).close();
    }

    @Override
    public void close() {
      inputs.values().forEach(OnnxTensor::close);
      inputs.clear();
    }
  }
}
