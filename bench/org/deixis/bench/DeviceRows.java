package org.deixis.bench;

import java.util.ArrayList;
import java.util.List;
import org.deixis.backend.Backend;
import org.deixis.backend.Scope;
import org.deixis.core.DType;
import org.deixis.data.RgbImage;
import org.deixis.infer.ForwardGraphs;
import org.deixis.infer.Logits;
import org.deixis.model.bert.Tokens;
import org.deixis.model.gres.GresConfig;
import org.deixis.model.gres.GuideModel;
import org.deixis.model.gres.PictureEncoding;
import org.deixis.nn.ParameterSource;
import org.deixis.tensor.Tensor;

/**
 * Inference of the guide model on a card, Swin-B at 224 and 480 pixels and BERT-base with random
 * weights, one picture with one phrase and with eight: as a segmenter does it, by replayed graphs,
 * beside the same call by call, and PyTorch. Times include taking the picture in and handing the
 * mask out.
 */
final class DeviceRows {
  private static final int LARGE = 480;
  private static final int MANY = 8;
  private static final String CALLS = "Deixis, call by call";

  /** What is wanted of one phrase, against PyTorch call by call. */
  private static final double WANTED = 2;

  /** Least overlap of a mask in half precision with that in full. */
  private static final double WANTED_IOU = 0.99;

  private final Bench bench;
  private final Backend backend;

  DeviceRows(Bench bench) {
    this.bench = bench;
    this.backend = bench.backend();
  }

  void measure() {
    for (int size : new int[] {GuideRows.SIZE, LARGE}) {
      GresConfig config = GresConfig.DEFAULT.withPictures(size, size, GresConfig.DEFAULT.swin());
      String what = "guide model, Swin-B " + size + " + BERT-base, ";
      measure(what, config, 1, true);
      measure(what, config, MANY, true);
    }
  }

  /**
   * @param twin whether PyTorch has this configuration
   */
  void measure(String what, GresConfig config, int phrases, boolean twin) {
    DType dtype = bench.dtype();
    String name =
        what + (phrases == 1 ? "one phrase, " : phrases + " phrases, ") + bench.dtypeName();
    if (!bench.wants(name)) {
      return;
    }
    bench.attempt(name, () -> row(name, config, phrases, dtype, twin));
    if (dtype.isHalf() && phrases == 1) {
      bench.attempt(name + IOU, () -> overlap(name + IOU, config, dtype));
    }
  }

  private static final String IOU = ": mask against fp32's";

  private void row(String name, GresConfig config, int phrases, DType dtype, boolean twin) {
    List<PeerProcess.Work> theirs = new ArrayList<>();
    try (Model model = new Model(config, dtype)) {
      List<Contender> others = new ArrayList<>();
      others.add(named(CALLS, Contender.engine(backend, () -> model.calls(phrases))));
      if (twin) {
        var task = GuideRows.task(config.imageHeight(), phrases, dtype);
        bench.prepare(name, Row.PYTORCH, task, theirs);
        if (bench.compiled()) {
          task.put("compiled", true);
          bench.prepare(name, Row.PYTORCH_COMPILED, task, theirs);
        }
      }
      others.addAll(theirs);
      Effort effort = bench.effort(7, 15, 2);
      Contender engine = Contender.engine(backend, () -> model.replayed(phrases));
      Row row = Row.timed(Row.Group.INFERENCE, name, bench.time(name, engine, others, effort));
      if (phrases == 1 && row.peers().containsKey(Row.PYTORCH)) {
        row.wants(Row.PYTORCH, WANTED);
      }
      bench.add(row.with("graphs", model.graphs.size()));
    } finally {
      bench.drop(theirs);
      backend.memory().trim();
    }
  }

  private static Contender named(String name, Contender one) {
    return new Contender() {
      @Override
      public String name() {
        return name;
      }

      @Override
      public boolean compiles() {
        return one.compiles();
      }

      @Override
      public double seconds(int calls, boolean warm) {
        return one.seconds(calls, warm);
      }
    };
  }

  private void overlap(String name, GresConfig config, DType dtype) {
    float[] exact;
    try (Model model = new Model(config, DType.F32)) {
      exact = model.replayed(1).mask();
    }
    try (Model model = new Model(config, dtype)) {
      double iou = GuideRows.iou(exact, model.replayed(1).mask());
      bench.add(Row.of(Row.Group.INFERENCE, name, "IoU", iou).with("wanted", WANTED_IOU));
    }
  }

  /** A frozen model with random weights and something to ask of it. */
  private final class Model implements AutoCloseable {
    private final GuideModel model;
    private final ForwardGraphs graphs;
    private final RgbImage picture;

    Model(GresConfig config, DType dtype) {
      model = new GuideModel(ParameterSource.fresh(backend, 1), config);
      model.freeze(dtype);
      graphs = new ForwardGraphs(backend, model);
      int side = config.imageHeight();
      picture = new RgbImage(side, side, RandomInputs.batch(1, 1, side, 3, 100).pixels());
    }

    private Tokens tokens(int phrases) {
      return RandomInputs.tokens(phrases, GuideRows.TOKENS, model.config().text().vocab());
    }

    /** As a segmenter asks; call by call too where the device gives no graphs. */
    Logits replayed(int phrases) {
      List<Logits> logits =
          graphs.available()
              ? graphs.logits(picture, List.of(tokens(phrases)), model.config().regions())
              : null;
      return logits == null ? calls(phrases) : logits.get(0);
    }

    Logits calls(int phrases) {
      try (Scope scope = Scope.open()) {
        Tensor pixels =
            Tensor.bytes(backend, picture.data(), 1, picture.height(), picture.width(), 3);
        PictureEncoding encoding = model.encodePictures(pixels);
        return Logits.of(model.predict(encoding, model.upload(tokens(phrases))));
      }
    }

    @Override
    public void close() {
      graphs.close();
      model.close();
    }
  }
}
