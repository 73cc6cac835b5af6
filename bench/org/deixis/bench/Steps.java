package org.deixis.bench;

import java.util.List;
import org.deixis.autograd.Tape;
import org.deixis.backend.AdamW;
import org.deixis.backend.Array;
import org.deixis.backend.Backend;
import org.deixis.backend.Scope;
import org.deixis.core.DType;
import org.deixis.core.Shape;
import org.deixis.data.Batch;
import org.deixis.data.DataLoader;
import org.deixis.data.LoaderConfig;
import org.deixis.data.SceneMaker;
import org.deixis.data.TextTokenizer;
import org.deixis.model.gres.GresConfig;
import org.deixis.model.gres.GresLoss;
import org.deixis.model.gres.GuideModel;
import org.deixis.model.swin.Swin;
import org.deixis.model.swin.SwinConfig;
import org.deixis.nn.LinearLayer;
import org.deixis.nn.Module;
import org.deixis.nn.ParameterSource;
import org.deixis.nn.RandomState;
import org.deixis.optim.AdamWOptimizer;
import org.deixis.optim.AdamWOptimizer.LossScaling;
import org.deixis.optim.ParameterGroup;
import org.deixis.tensor.Tensor;
import org.deixis.train.TrainingStep;

/** Training steps that are timed: forward, backward, clipping and AdamW over one batch. */
interface Steps extends AutoCloseable {
  /** One step. */
  void run();

  /** What a step's rate counts: expressions, or pictures. */
  int amount();

  @Override
  void close();

  private static AdamWOptimizer optimizer(Backend backend, Module model, DType dtype) {
    return new AdamWOptimizer(
        backend,
        ParameterGroup.of(model.parameters(), 1, 0.02),
        new AdamW(0.9f, 0.999f, 1e-8f),
        1,
        dtype == DType.F16 ? LossScaling.DYNAMIC : LossScaling.NONE);
  }

  /** The demo's: 8 pictures of 96×96, 4 expressions each, the small model. */
  static Steps demo(Backend backend, DType dtype) {
    SceneMaker.Spec spec = new SceneMaker.Spec(SceneMaker.SIMPLE, 96, 64, 0, 4, 1);
    try (TextTokenizer tokenizer = SceneMaker.tokenizer(SceneMaker.SIMPLE);
        DataLoader loader =
            new DataLoader(
                SceneMaker.dataset(spec, SceneMaker.TRAIN),
                tokenizer,
                LoaderConfig.training(96, 8, 4, 10, 1).withPadToMax(true))) {
      GresConfig config =
          GresConfig.of("small").withVocab(tokenizer.vocabSize(), tokenizer.padId());
      return guide(backend, dtype, config, loader.next());
    }
  }

  /** The guide model's, on drawn pictures. */
  static Steps guide(Backend backend, DType dtype, GresConfig config, int images, int share) {
    Batch batch =
        RandomInputs.batch(
            images, share, config.imageHeight(), GuideRows.TOKENS, config.text().vocab());
    return guide(backend, dtype, config, batch);
  }

  private static Steps guide(Backend backend, DType dtype, GresConfig config, Batch batch) {
    GuideModel model = new GuideModel(ParameterSource.fresh(backend, 1), config, 1);
    model.precision(dtype);
    model.training(true);
    AdamWOptimizer optimizer = optimizer(backend, model, dtype);
    TrainingStep step = new TrainingStep(backend, model, new GresLoss(0.5f, 1, null), optimizer);
    return new Steps() {
      private int number;

      @Override
      public void run() {
        step.run(number++, List.of(batch), 1e-3, false, null);
      }

      @Override
      public int amount() {
        return batch.expressions();
      }

      @Override
      public void close() {
        step.close();
        optimizer.close();
        model.close();
      }
    };
  }

  /** Swin, the mean over its last map, and a linear layer: what classifying needs. */
  final class Classifier extends Module {
    private final Swin vision;
    private final LinearLayer head;

    Classifier(Backend backend, SwinConfig config, int size, int classes, RandomState random) {
      ParameterSource source = ParameterSource.fresh(backend, 1);
      vision = register("vision", new Swin(source.part("vision"), config, size, size, random));
      int width = config.width(config.stages() - 1);
      head = register("head", new LinearLayer(source.part("head"), width, classes));
    }

    Tensor forward(Tensor images) {
      Tensor map = vision.forward(images).get(3);
      int pixels = map.dim(1) * map.dim(2);
      return head.forward(map.reshape(map.dim(0), pixels, map.dim(3)).mean(1, 2));
    }
  }

  /** Swin-T as a classifier of 1,000 classes. */
  static Steps classifier(Backend backend, DType dtype, SwinConfig config, int images, int size) {
    RandomState random = new RandomState(backend, 1);
    Classifier model = new Classifier(backend, config, size, 1000, random);
    model.precision(dtype);
    model.training(true);
    AdamWOptimizer optimizer = optimizer(backend, model, dtype);
    Batch batch = RandomInputs.batch(images, 1, size, 3, 100);
    int[] labels = new int[images];
    for (int i = 0; i < images; i++) {
      labels[i] = i;
    }
    return new Steps() {
      @Override
      public void run() {
        random.restart();
        try (Scope scope = Scope.open();
            Tape tape = Tape.open()) {
          Tensor x = Tensor.bytes(backend, batch.pixels(), images, size, size, 3);
          Tensor loss = model.forward(x).crossEntropy(Tensor.ints(backend, labels, images), null);
          Array seed = optimizer.seed(Shape.of(1), 1);
          tape.backward(List.of(loss.variable()), List.of(seed));
        }
        optimizer.step(1e-3);
      }

      @Override
      public int amount() {
        return images;
      }

      @Override
      public void close() {
        optimizer.close();
        model.close();
        random.close();
      }
    };
  }
}
